-- wrk: requests sent ahead; arguments: the path, how many at once.
local all

function init(arguments)
   all = string.rep("GET " .. arguments[1] .. " HTTP/1.1\r\nHost: bench\r\n\r\n", tonumber(arguments[2]))
end

function request()
   return all
end
