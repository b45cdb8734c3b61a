-- Ends one hold exactly once, whoever asks: gateway, its journal's replay, or the sweeper.
-- KEYS: settled marker, hold, holds, account, bucket, usage stream
-- ARGV: request id, charge in nano-dollars, tokens used, usage event JSON ('' voids), marker's life in seconds,
--       account key prefix, bucket key prefix
-- Returns 1 when this call settled it, 0 when it was settled before.
-- A hold knows whose it is; KEYS' account and bucket count only when Redis lost it.
-- Amounts are added by HINCRBY from their text: exact in 64 bits, never through Lua's doubles.

-- A void is a conclusion from silence, a charge is evidence: a charge may follow a void, nothing a charge.
local void = ARGV[4] == ''
local marker = redis.call('GET', KEYS[1])
if marker == 'charged' or (marker and void) then
  return 0
end
redis.call('SET', KEYS[1], void and 'void' or 'charged', 'EX', ARGV[5])

-- Below zero these would lend money or slots that nobody has: where Redis lost data, stop at nothing.
local function take(key, field, amount)
  local there = tonumber(redis.call('HGET', key, field) or '0')
  if there > tonumber(amount) then
    redis.call('HINCRBY', key, field, '-' .. amount)
  elseif there ~= 0 then
    redis.call('HSET', key, field, '0')
  end
end

local hold = redis.call('HMGET', KEYS[2], 'amount_nano', 'tokens', 'released', 'tenant_id', 'key_id')
if hold[1] then
  local account, bucket = ARGV[6] .. (hold[4] or ''), ARGV[7] .. (hold[5] or '')
  redis.call('DEL', KEYS[2])
  if tonumber(hold[1]) > 0 then
    take(account, 'held', hold[1])
  end
  if not hold[3] then
    take(account, 'inflight', '1')
    take(bucket, 'inflight', '1')
    local unused = (tonumber(hold[2]) or 0) - tonumber(ARGV[3])
    if unused > 0 then
      redis.call('HINCRBYFLOAT', bucket, 'tokens', unused)
    end
  end
end
redis.call('ZREM', KEYS[3], ARGV[1])

-- What went into pending, and whose, travels beside the event (metering.intake reads these fields): the meter
-- can take out of pending even what it cannot read.
if not void then
  redis.call('HINCRBY', KEYS[4], 'pending', ARGV[2])
  redis.call('XADD', KEYS[6], '*', 'event', ARGV[4], 'request_id', ARGV[1],
    'tenant_id', string.match(KEYS[4], '[^:]*$'), 'charge_nano', ARGV[2])
end
return 1
