-- wrk: every request is another session's, with the headers of `_visitor` in growth.py; arguments as `init` names them.
local requests, last = {}, 0

function init(arguments)
   local cookie = arguments[1]
   local apps, sessions, addresses = tonumber(arguments[2]), tonumber(arguments[3]), tonumber(arguments[4])
   for number = 0, sessions - 1 do
      local address = number % addresses
      requests[number + 1] = wrk.format("GET", "/exapps/app" .. number % apps .. "/user/1k", {
         ["Cookie"] = cookie .. "; n=" .. number,
         ["X-Forwarded-For"] = "10.0." .. math.floor(address / 256) .. "." .. address % 256,
      })
   end
end

function request()
   last = last % #requests + 1
   return requests[last]
end
