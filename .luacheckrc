-- The Lua that Redis runs.
std = "lua51"
read_globals = {"redis", "cjson", "KEYS", "ARGV"}
