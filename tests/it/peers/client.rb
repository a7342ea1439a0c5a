# Calls an arrpc server from Ruby: HOST PORT [SECRET]. Prints every reply as a line of JSON.

require "json"
require "msgpack"
require "openssl"
require "socket"

host, port, SECRET = ARGV

# The whole client: an encoded value goes out, a decoded one comes back.
socket = TCPSocket.new(host, port)
replies = MessagePack::Unpacker.new(socket)

def packed(message)
  data = message.to_msgpack
  SECRET ? { "arrpc.sign" => signature(data), "data" => data }.to_msgpack : data
end

def signature(data)
  OpenSSL::HMAC.hexdigest("SHA256", SECRET, data).encode("UTF-8") # hexdigest's own encoding makes it bin
end

requests = [
  { "foo" => "bar" },
  { 1 => "one", 2 => "two" },
  "\x00\x01\xFE\xFF".b, # .b makes it bin
  { "list" => [1, [2, [3, {}]]], "map" => { "a" => { "b" => true } } },
  "héllo ✓ 日本語 🦀",
  nil,
  [18_446_744_073_709_551_615, -9_223_372_036_854_775_808, 4_294_967_296],
  "x" * 100_000
].map { |message| packed(message) }

# JSON with bytes as {"$bin": base64}.
def to_json_line(reply)
  bin = reply.is_a?(String) && reply.encoding == Encoding::BINARY
  JSON.generate(bin ? { "$bin" => [reply].pack("m0") } : reply)
end

requests.each do |data|
  socket.write(data)
  puts to_json_line(replies.read)
end
socket.write(requests.join) # back to back: the replies come in the same order
requests.each { puts to_json_line(replies.read) }
socket.close
