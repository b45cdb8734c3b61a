-- Admission in one round trip: key, allow-list, rate, concurrency, funds; then the hold. Nothing changes on refusal.
-- KEYS: key record, epoch, settled marker, hold, holds
-- ARGV: request id, amount in nano-dollars, tokens wanted, gateway id, context JSON, model,
--       account key prefix, bucket key prefix
-- The key names its tenant, so account and bucket keys are made here: one Redis node, or one hash slot.
-- Balances are compared as doubles (exact below nine million dollars) and changed by HINCRBY (exact in 64 bits).
if redis.call('EXISTS', KEYS[3]) == 1 then
  return {'ended'}
end
local record = redis.call('GET', KEYS[1])
if not record then
  if redis.call('EXISTS', KEYS[2]) == 0 then
    return {'unpublished'}
  end
  return {'no_key'}
end
local key = cjson.decode(record)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expires = tonumber(key.expires_at_ms)
if expires and expires <= now then
  return {'no_key'}
end
if type(key.models) == 'table' then
  local allowed = false
  for _, name in ipairs(key.models) do
    allowed = allowed or name == ARGV[6]
  end
  if not allowed then
    return {'model'}
  end
end

local bucket = ARGV[8] .. key.key_id
local state = redis.call('HMGET', bucket, 'requests', 'tokens', 'at_ms', 'inflight')
local elapsed = math.max(0, now - (tonumber(state[3]) or now))
local rpm = math.max(1, tonumber(key.requests_per_minute) or 6000)
local tpm = math.max(1, tonumber(key.tokens_per_minute) or 10000000)
local wanted = math.min(tonumber(ARGV[3]), tpm)
local requests = math.min(rpm, (tonumber(state[1]) or rpm) + elapsed * rpm / 60000)
local tokens = math.min(tpm, (tonumber(state[2]) or tpm) + elapsed * tpm / 60000)
local function figures(requests_left, tokens_left)
  return rpm, math.floor(requests_left), math.ceil((rpm - requests_left) * 60000 / rpm),
    tpm, math.floor(tokens_left), math.ceil((tpm - tokens_left) * 60000 / tpm)
end
if requests < 1 then
  return {'requests', math.ceil((1 - requests) * 60000 / rpm), figures(requests, tokens)}
end
if tokens < wanted then
  return {'tokens', math.ceil((wanted - tokens) * 60000 / tpm), figures(requests, tokens)}
end
if (tonumber(state[4]) or 0) >= (tonumber(key.max_concurrency) or 512) then
  return {'concurrency', 1000, figures(requests, tokens)}
end

local account = ARGV[7] .. key.tenant_id
local money = redis.call('HMGET', account, 'credit', 'pending', 'held')
if not money[1] then
  return {'unpublished'}
end
local available = tonumber(money[1]) - (tonumber(money[2]) or 0) - (tonumber(money[3]) or 0)
if available < tonumber(ARGV[2]) then
  return {'funds', string.format('%.0f', available), figures(requests, tokens)}
end

requests = requests - 1
tokens = tokens - wanted
redis.call('HSET', bucket, 'requests', requests, 'tokens', tokens, 'at_ms', now)
redis.call('HINCRBY', bucket, 'inflight', 1)
redis.call('HINCRBY', account, 'held', ARGV[2])
redis.call('HINCRBY', account, 'inflight', 1)
redis.call('HSET', KEYS[4], 'tenant_id', key.tenant_id, 'project_id', key.project_id, 'key_id', key.key_id,
  'amount_nano', ARGV[2], 'tokens', wanted, 'gateway_id', ARGV[4], 'created_ms', now, 'context', ARGV[5])
redis.call('ZADD', KEYS[5], now, ARGV[1])
return {'ok', record, figures(requests, tokens)}
