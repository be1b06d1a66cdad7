-- wrk: uploads; arguments: the path, the form of the body ("length" or the size of a chunk in bytes), its size in bytes.
local one

function init(arguments)
   local path, form, size = arguments[1], arguments[2], tonumber(arguments[3])
   local head = "POST " .. path .. " HTTP/1.1\r\nHost: bench\r\n"
   if form == "length" then
      one = head .. "Content-Length: " .. size .. "\r\n\r\n" .. string.rep("x", size)
   else
      local piece = tonumber(form)
      local chunk = string.format("%x\r\n%s\r\n", piece, string.rep("x", piece))
      one = head .. "Transfer-Encoding: chunked\r\n\r\n" .. string.rep(chunk, size / piece) .. "0\r\n\r\n"
   end
end

function request()
   return one
end
