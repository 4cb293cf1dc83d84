-- Capacity of one endpoint: who holds how much of it, and who waits for some.
--
-- KEYS: held, leases, turns, granted, parked, waiting; all that this touches, as Redis in cluster mode asks for
-- ARGV: verb, then
--   request  shard, need, limit, lease (s), job, message, ticket (tells this message from others of the shard)
--   keep     shard, amount, lease (s)
--   forget   job
--   grant
-- and last of all, for each: seconds until a granted shard that nobody took up waits again.
-- Each verb ends by granting what is free to who waits, and answers with the granted messages, and with
-- those that a forgotten job had parked: they find it over, and its chord comes to its end:
-- {"1" if the asking shard holds its share now else "0", message, ...}
--
-- A shard gets its whole need or nothing, so that no two hold halves for ever. Jobs take turns, a
-- shard each. Time is the server's: workers' clocks may differ.

local held_key = KEYS[1] -- hash: shard -> amount
local lease_key = KEYS[2] -- sorted set: shard by end of lease
local turns_key = KEYS[3] -- list: jobs that wait, next first
local granted_key = KEYS[4] -- hash: shard -> entry, until the shard makes use of it
local parked_key = KEYS[5] -- hash: shard and ticket -> job, while it waits
-- hash: the line of each job, next first: '<job> first' and '<job> last' -> place, '<job> <place>' -> entry
local waiting_key = KEYS[6]

local GRANT_LEASE = tonumber(ARGV[#ARGV])
local KEEP = 7 * 24 * 3600 -- s that these keys outlive their last use

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6

local function place(job, name)
    return tonumber(redis.call('HGET', waiting_key, job .. ' ' .. name) or nil)
end

local function waits(job)
    return redis.call('HEXISTS', waiting_key, job .. ' first') == 1
end

local function line_up(job, text, at_front)
    local first, last = place(job, 'first') or 1, place(job, 'last') or 0
    if at_front then
        first = first - 1
    else
        last = last + 1
    end
    local at = at_front and first or last
    redis.call('HSET', waiting_key, job .. ' first', first, job .. ' last', last, job .. ' ' .. at, text)
end

local function next_in_line(job)
    local first = place(job, 'first')
    return first and redis.call('HGET', waiting_key, job .. ' ' .. first)
end

local function leave_line(job)
    local first, last = place(job, 'first'), place(job, 'last')
    redis.call('HDEL', waiting_key, job .. ' ' .. first)
    if first == last then
        redis.call('HDEL', waiting_key, job .. ' first', job .. ' last')
    else
        redis.call('HSET', waiting_key, job .. ' first', first + 1)
    end
end

local function hold(shard, amount, lease)
    redis.call('HSET', held_key, shard, amount)
    redis.call('ZADD', lease_key, now + lease, shard)
end

local function give_back(shard)
    redis.call('HDEL', held_key, shard)
    redis.call('ZREM', lease_key, shard)
    redis.call('HDEL', granted_key, shard)
end

local function parked_field(entry)
    return entry.shard .. ' ' .. entry.ticket
end

local function park(entry, at_front)
    local job = entry.job
    if redis.call('HSETNX', parked_key, parked_field(entry), job) == 0 then
        return
    end
    if not waits(job) then
        redis.call('RPUSH', turns_key, job)
    end
    line_up(job, cjson.encode(entry), at_front)
end

local function end_leases()
    for _, shard in ipairs(redis.call('ZRANGEBYSCORE', lease_key, '-inf', now)) do
        local entry = redis.call('HGET', granted_key, shard)
        give_back(shard)
        if entry then
            park(cjson.decode(entry), true)
        end
    end
end

local function in_use()
    local total = 0
    for _, amount in ipairs(redis.call('HVALS', held_key)) do
        total = total + tonumber(amount)
    end
    return total
end

local function forget(job)
    local messages = {}
    local text = next_in_line(job)
    while text do
        local entry = cjson.decode(text)
        redis.call('HDEL', parked_key, parked_field(entry))
        messages[#messages + 1] = entry.message
        leave_line(job)
        text = next_in_line(job)
    end
    redis.call('LREM', turns_key, 0, job)
    for _, shard in ipairs(redis.call('HKEYS', held_key)) do
        if string.sub(shard, 1, #job + 1) == job .. '/' then
            local granted = redis.call('HGET', granted_key, shard)
            if granted then
                -- Who was to publish it may have died; that it comes twice does no harm.
                messages[#messages + 1] = cjson.decode(granted).message
            end
            give_back(shard)
        end
    end
    return messages
end

local function grant_waiting()
    local messages = {}
    local used = in_use()
    while true do
        local job = redis.call('LINDEX', turns_key, 0)
        if not job then
            break
        end
        local text = next_in_line(job)
        if not text then
            redis.call('LPOP', turns_key)
        else
            local entry = cjson.decode(text)
            -- Another message of a shard that holds its share: it costs nothing more.
            local holds = redis.call('HEXISTS', held_key, entry.shard) == 1
            if not holds and used > 0 and used + entry.need > entry.limit then
                break
            end
            leave_line(job)
            redis.call('LPOP', turns_key)
            if waits(job) then
                redis.call('RPUSH', turns_key, job)
            end
            redis.call('HDEL', parked_key, parked_field(entry))
            if not holds then
                hold(entry.shard, entry.need, GRANT_LEASE)
                redis.call('HSET', granted_key, entry.shard, text)
                used = used + entry.need
            end
            messages[#messages + 1] = entry
        end
    end
    return messages
end

local function take_up(shard, amount, lease)
    hold(shard, amount, lease)
    redis.call('HDEL', granted_key, shard)
end

end_leases()
local verb, shard = ARGV[1], ARGV[2]
local answer = { '0' }

if verb == 'request' then
    local need, limit, lease = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
    if redis.call('HEXISTS', held_key, shard) == 1 then
        take_up(shard, redis.call('HGET', held_key, shard), lease)
    else
        local entry = { shard = shard, need = need, limit = limit, job = ARGV[6], message = ARGV[7], ticket = ARGV[8] }
        park(entry, false)
    end
elseif verb == 'keep' then
    if tonumber(ARGV[3]) > 0 then
        take_up(shard, ARGV[3], tonumber(ARGV[4]))
    else
        give_back(shard)
    end
elseif verb == 'forget' then
    for _, message in ipairs(forget(shard)) do
        answer[#answer + 1] = message
    end
end

for _, entry in ipairs(grant_waiting()) do
    if verb == 'request' and entry.shard == shard and entry.ticket == ARGV[8] then
        take_up(shard, entry.need, tonumber(ARGV[5]))
    else
        answer[#answer + 1] = entry.message
    end
end
if redis.call('HEXISTS', held_key, shard) == 1 then
    answer[1] = '1'
end
for _, key in ipairs(KEYS) do
    redis.call('EXPIRE', key, KEEP)
end
return answer
