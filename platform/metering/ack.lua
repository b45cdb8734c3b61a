-- After the ledger has committed a batch: drop its events from the stream and from what is pending.
-- Only the one whose XACK counts may subtract, so a batch that two meters posted is subtracted once.
--
-- KEYS  1 usage stream   2… account hashes
-- ARGV  1 group   2 number of accounts n   then n pairs (credit, version), '' where not read
--       then triples (message id, index of its account 1…n or 0 for none, charge)
-- gives how many events were dropped here

local accounts = tonumber(ARGV[2])
local at = 3
for index = 1, accounts do
  local credit, version = ARGV[at], ARGV[at + 1]
  at = at + 2
  if credit ~= '' then
    local known = redis.call('HGET', KEYS[index + 1], 'version')
    if not known or tonumber(version) > tonumber(known) then
      redis.call('HSET', KEYS[index + 1], 'credit', credit, 'version', version)
    end
  end
end

local dropped = 0
while at <= #ARGV do
  local id, account, charge = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  at = at + 3
  if redis.call('XACK', KEYS[1], ARGV[1], id) == 1 then
    redis.call('XDEL', KEYS[1], id)
    dropped = dropped + 1
    if account > 0 and tonumber(charge) > 0 then
      local key = KEYS[account + 1]
      local pending = tonumber(redis.call('HGET', key, 'pending') or '0')
      if pending > tonumber(charge) then
        redis.call('HINCRBY', key, 'pending', '-' .. charge)
      elseif pending ~= 0 then
        redis.call('HSET', key, 'pending', '0')
      end
    end
  end
end
return dropped
