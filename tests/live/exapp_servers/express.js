// node express.js PORT, with express in NODE_PATH
const express = require('express')
const handlers = process.env.HANDLERS.split(',')

function app(strict, mounted) {
  const app = express()
  app.set('strict routing', strict)
  for (const path of handlers) {
    const run = (request, response) => { response.end(`${path}`) }
    if (mounted) app.use(path, (request, response, next) => request.path === '/' ? run(request, response) : next())
    else app.get(path, run)
  }
  app.use((request, response) => response.end('-'))
  app.use((error, request, response, next) => response.end('-'))
  return app
}

const ways = { default: app(false, false), strict: app(true, false), mounted: app(false, true) }

function run(way, request) {
  return new Promise((resolve) => {
    const response = Object.create(require('http').ServerResponse.prototype)
    require('http').ServerResponse.call(response, request)
    response.end = (body) => { resolve(String(body ?? '-')); return response }
    const target = request.url
    way.handle(request, response, () => resolve('-'))
    request.url = target
  })
}

require('http').createServer(async (request, response) => {
  const found = []
  for (const [name, way] of Object.entries(ways)) found.push(`${name}=${await run(way, request)}`)
  response.end(found.join(' '))
}).listen(Number(process.argv[2]), '127.0.0.1')
