#!lua
-- Puts a shard back to the front of its job and of RQ's queue; its client is not charged for it a second time.
-- RQ's queue; job id, shard number
-- luacheck: read_globals again

again(KEYS[1], ARGV[1], ARGV[2])
