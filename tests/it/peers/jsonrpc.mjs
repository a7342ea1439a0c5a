// Calls a JSON-RPC server over HTTP: URL TOKEN. Prints what `fetch` gets, a line each, and then what
// the library `jayson` gets.

import { isDeepStrictEqual } from "node:util";
import jayson from "jayson/promise/index.js";

const [url, token] = process.argv.slice(2);

const values = [
  null, true, 0, -1, Number.MAX_SAFE_INTEGER, 0.1, 1e300, "", "héllo ✓ 日本語 🦀 \0\u2028", [], {},
  [1, [2.5, null]], { ключ: { a: [] } },
];

async function post(body, headers = {}) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  return [response.status, text && JSON.parse(text)];
}

async function call(method, params, headers) {
  return (await post({ jsonrpc: "2.0", id: 1, method, params }, headers))[1];
}

async function same(echo) {
  let count = 0;
  for (const value of values) count += isDeepStrictEqual(await echo(value), value);
  return count;
}

console.log((await call("plus", [10, 20])).result, (await call("plus", { b: 1, a: 2 })).result);
console.log(await same(async (value) => (await call("echo", [value])).result));
console.log(JSON.stringify(await post({ jsonrpc: "2.0", method: "plus", params: [1, 2] })));
const [status, batch] = await post([
  { jsonrpc: "2.0", method: "plus", params: [1, 2], id: "a" },
  { jsonrpc: "2.0", method: "plus", params: [3, 4] },
  { jsonrpc: "2.0", method: "none", id: 2 },
  7,
]);
console.log(status, JSON.stringify(batch.map((one) => [one.id, one.result ?? one.error.code])));
for (const [method, params] of [["none", []], ["plus", [1]], ["fail", []], ["private", []]]) {
  const { code, message, data } = (await call(method, params)).error;
  console.log(code, message, JSON.stringify(data));
}
console.log((await call("private", [], { Authorization: `Bearer ${token}` })).result);

const { hostname, port, pathname } = new URL(url);
const options = { hostname, port, path: pathname };
const client = jayson.client.http(options);
console.log((await client.request("plus", [10, 20])).result);
console.log((await client.request("plus", { b: 1, a: 2 })).result);
console.log(await same(async (value) => (await client.request("echo", [value])).result));
console.log(String(await client.request("plus", [1, 2], null)));
const requests = [
  client.request("plus", [1, 2], "a", false),
  client.request("none", [], "b", false),
];
console.log(JSON.stringify((await client.request(requests)).map((one) => one.result ?? one.error.code)));
for (const [method, params] of [["none", []], ["plus", [1, "x"]], ["fail", []], ["private", []]]) {
  const { code, message } = (await client.request(method, params)).error;
  console.log(code, message);
}
const known = jayson.client.http({ ...options, headers: { "X-Api-Token": token } });
console.log((await known.request("private", [])).result);
