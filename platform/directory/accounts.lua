-- Publish balances: each account's credit and version, unless Redis knows a newer version already.
-- What is pending and held stays as it is: Redis is the only one who knows.
--
-- KEYS  account hashes   ARGV  a pair (credit, version) for each   gives how many changed

local changed = 0
for index, key in ipairs(KEYS) do
  local credit, version = ARGV[2 * index - 1], ARGV[2 * index]
  local known = redis.call('HGET', key, 'version')
  if not known or tonumber(version) > tonumber(known) then
    redis.call('HSET', key, 'credit', credit, 'version', version)
    changed = changed + 1
  end
end
return changed
