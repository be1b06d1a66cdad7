-- wrk: requests as a Nextcloud sends them, no two alike; arguments as `init` names them.
-- 1,000 sessions, each with its cookie, address and browser; paths, queries, request ids and tags change with every request.
local SESSIONS = 1000
local PATHS = {
   "/exapps/bench/real/js/chunk-%x.mjs?v=%x-%d",
   "/exapps/bench/real/css/view-%x.css?v=%x-%d",
   "/exapps/bench/real/img/%x/preview.svg?c=%x&x=%d&y=32&a=1",
   "/exapps/bench/user/real/api/v1/items/%x/comments?cursor=%x&limit=%d",
}
local HEAD = table.concat({
   "GET %s HTTP/1.1", "Host: cloud.example.com", "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:%d.0) Gecko/20100101 Firefox/%d.0",
   "Accept: application/json, text/plain, */*", "Accept-Language: %s", "Accept-Encoding: gzip, deflate, br, zstd",
   "Referer: https://cloud.example.com/apps/app_api/embedded/bench/view-%x", "X-Requested-With: XMLHttpRequest",
   "requesttoken: %s", "Cookie: %s", "X-Forwarded-For: 198.51.%d.%d", "X-Forwarded-Proto: https",
   "X-Forwarded-Host: cloud.example.com", "X-Request-Id: %08x%08x", 'If-None-Match: "%x"', "Sec-Fetch-Site: same-origin",
   "Sec-Fetch-Mode: cors", "Priority: u=4", "%s", "",
}, "\r\n")
local LANGUAGES = { "en-GB,en;q=0.7", "de-DE,de;q=0.9,en;q=0.5", "fr", "es-ES,es;q=0.8", "ja,en;q=0.3" }
local random, format = math.random, string.format
local cookies, tokens, last = {}, {}, ""

function init(arguments)
   local cookie, seed = arguments[1], tonumber(arguments[2])
   if arguments[3] == "close" then
      last = "Connection: close\r\n"
   end
   math.randomseed(seed)
   for session = 1, SESSIONS do
      cookies[session] = format("%s; n=%d-%d; nc_sameSiteCookielax=true; nc_theme=%x", cookie, seed, session, random(0, 2 ^ 30))
      tokens[session] = format("%08x%08x%08x=", random(0, 2 ^ 31), random(0, 2 ^ 31), random(0, 2 ^ 31))
   end
end

function request()
   local session, one, two = random(SESSIONS), random(0, 2 ^ 31), random(0, 2 ^ 31)
   local path = format(PATHS[random(#PATHS)], one, two, random(5000))
   local version = 120 + session % 23
   return format(
      HEAD, path, version, version, LANGUAGES[session % #LANGUAGES + 1], one, tokens[session], cookies[session],
      math.floor(session / 250), session % 250, two, one, random(0, 2 ^ 31), last
   )
end
