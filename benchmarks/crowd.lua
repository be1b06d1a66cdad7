-- wrk: every request is another session's, with the headers of `_visitor` in growth.py; arguments as `init` names them.
-- As many requests are kept ready however few sessions there are, so that wrk itself costs the same.
local READY = 10000
local requests, last = {}, 0

function init(arguments)
   local cookie = arguments[1]
   local apps, sessions, addresses = tonumber(arguments[2]), tonumber(arguments[3]), tonumber(arguments[4])
   for number = 0, READY - 1 do
      local session = number % sessions
      local address = session % addresses
      requests[number + 1] = wrk.format("GET", "/exapps/app" .. session % apps .. "/user/1k", {
         ["Cookie"] = cookie .. "; n=" .. session,
         ["X-Forwarded-For"] = "10.0." .. math.floor(address / 256) .. "." .. address % 256,
      })
   end
end

function request()
   last = last % READY + 1
   return requests[last]
end
