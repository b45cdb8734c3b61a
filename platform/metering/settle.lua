-- Settle or void one request: release what was held, add what is owed, hand the event to the meter.
-- Idempotent by a marker. Money is in nano-dollars, as text, so that no digit passes through a double.
--
-- KEYS  1 marker   2 hold hash   3 holds zset   4 account hash   5 rate hash of the key   6 usage stream
-- ARGV  1 request id   2 tenant id   3 charge   4 event JSON ('' = void)   5 marker lifetime in seconds
-- gives 0 nothing to do   1 settled, hold released   2 settled, there was no hold (Redis had lost it)

local void = ARGV[4] == ''
local marker = redis.call('GET', KEYS[1])
-- A void is a conclusion from silence; a charge is evidence. So a charge may follow a void, nothing a charge.
if marker == 'charged' or (marker and void) then
  return 0
end

-- Below zero these would lend money or slots that nobody has: after a loss of data, stop at nothing.
local function decrease(key, field, by)
  local current = tonumber(redis.call('HGET', key, field) or '0')
  if current > tonumber(by) then
    redis.call('HINCRBY', key, field, '-' .. by)
  elseif current ~= 0 then
    redis.call('HSET', key, field, '0')
  end
end

local found = 2
local amount = redis.call('HGET', KEYS[2], 'amount_nano')
if amount then
  found = 1
  if tonumber(amount) > 0 then
    decrease(KEYS[4], 'held', amount)
  end
  decrease(KEYS[5], 'inflight', '1')
  redis.call('DEL', KEYS[2])
end
redis.call('ZREM', KEYS[3], ARGV[1])

if not void then
  redis.call('HINCRBY', KEYS[4], 'pending', ARGV[3])
  redis.call('XADD', KEYS[6], '*', 'event', ARGV[4], 'request_id', ARGV[1],
    'tenant_id', ARGV[2], 'charge_nano', ARGV[3])
end
redis.call('SET', KEYS[1], void and 'void' or 'charged', 'EX', ARGV[5])
return found
