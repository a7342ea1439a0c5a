// Calls an arrpc server from Node: HOST PORT [SECRET]. Prints every reply as a line of JSON.

import { createHmac } from "node:crypto";
import { connect } from "node:net";
import { decodeMultiStream, encode } from "@msgpack/msgpack";

const [host, port, secret] = process.argv.slice(2);

// The whole client: an encoded value goes out, a decoded one comes back.
const socket = connect(port, host);
const replies = decodeMultiStream(socket, { useBigInt64: true });

function write(data) {
  socket.write(secret ? signed(data) : data);
}

async function read() {
  const { done, value } = await replies.next();
  if (done) throw new Error("the server closed the connection");
  return value;
}

function signed(data) {
  return encode({ "arrpc.sign": createHmac("sha256", secret).update(data).digest("hex"), data });
}

// Object keys are strings here, and a Map is encoded as {}: this is {1: "one", 2: "two"}.
const intKeys = Buffer.from("\x82\x01\xa3one\x02\xa3two", "latin1");
const requests = [
  { foo: "bar" },
  intKeys,
  Uint8Array.of(0x00, 0x01, 0xfe, 0xff),
  { list: [1, [2, [3, {}]]], map: { a: { b: true } } },
  "héllo ✓ 日本語 🦀",
  null,
  [18446744073709551615n, -9223372036854775808n, 4294967296n],
  "x".repeat(100_000),
].map((message) => (message === intKeys ? message : encode(message, { useBigInt64: true })));

// JSON with big integers as they are, and bytes as {"$bin": base64}.
function toJson(value) {
  if (typeof value === "bigint") return String(value);
  if (value instanceof Uint8Array) return toJson({ $bin: Buffer.from(value).toString("base64") });
  if (Array.isArray(value)) return `[${value.map(toJson)}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}:${toJson(item)}`)}}`;
}

for (const data of requests) {
  write(data);
  console.log(toJson(await read()));
}
requests.forEach(write); // back to back: the replies come in the same order
for (const _ of requests) console.log(toJson(await read()));
socket.end();
