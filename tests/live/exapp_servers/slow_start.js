// An ExApp in Node.js with nothing but its standard library, which takes a second to start, as larger ones do.
"use strict";
const http = require("node:http");

function identity(request) {
  const [user, secret] = Buffer.from(request.headers["authorization-app-api"] || "", "base64").toString().split(":");
  return secret === process.env.APP_SECRET ? user : null;
}

const server = http.createServer((request, response) => {
  const answer = (status, value) => {
    response.writeHead(status, {"content-type": "application/json"});
    response.end(JSON.stringify(value));
  };
  const user = identity(request);
  if (request.url === "/heartbeat") return answer(200, {status: "ok"});
  if (user === null) return answer(401, {});
  if (request.url === "/init") return answer(200, {});
  if (request.url.startsWith("/enabled")) return answer(200, {error: ""});
  return answer(200, {hello: user || "stranger", node: process.versions.node.split(".")[0]});
});

setTimeout(() => {
  if (process.env.HP_SHARED_KEY) server.listen(process.env.HP_EXAPP_SOCK);
  else server.listen(Number(process.env.APP_PORT), process.env.APP_HOST);
}, 1000);
process.on("SIGTERM", () => process.exit(0));
