// node node.js PORT
const http = require('http')
const url = require('url')
const handlers = process.env.HANDLERS.split(',')

function attempt(read) {
  try { return read() } catch { return null }
}

http.createServer((request, response) => {
  const target = request.url
  const ways = {
    'raw': () => target.split('?')[0],
    'decoded': () => decodeURIComponent(target.split('?')[0]),
    'decoded-split': () => decodeURIComponent(target).split('?')[0],
    'URL': () => new URL(target, 'http://localhost').pathname,
    'URL-decoded': () => decodeURIComponent(new URL(target, 'http://localhost').pathname),
    'URL-joined': () => new URL('http://localhost' + target).pathname,
    'URL-of-decoded': () => new URL(decodeURIComponent(target), 'http://localhost').pathname,
    'URL-twice': () => new URL(new URL(target, 'http://localhost').pathname, 'http://localhost').pathname,
    'url.parse': () => url.parse(target).pathname,
    'url.parse-decoded': () => decodeURIComponent(url.parse(target).pathname),
    'url.parse-host': () => url.parse(target, false, true).pathname,
    'normalize': () => require('path').posix.normalize(decodeURIComponent(target.split('?')[0])),
    'win32': () => require('path').win32.normalize(decodeURIComponent(target.split('?')[0])).replaceAll('\\', '/'),
    'lower': () => decodeURIComponent(target.split('?')[0]).toLowerCase().trim()
  }
  const found = []
  for (const [way, read] of Object.entries(ways)) {
    const path = attempt(read)
    const bare = path === null ? null : path.replace(/\/+$/, '')
    found.push(`${way}=${handlers.includes(path) ? path : '-'}`, `${way}/=${handlers.includes(bare) ? bare : '-'}`)
  }
  response.end(found.join(' '))
}).listen(Number(process.argv[2]), '127.0.0.1')
