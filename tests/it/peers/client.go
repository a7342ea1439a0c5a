// Calls an arrpc server from Go: HOST PORT [SECRET]. Prints every reply as a line of JSON.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"net"
	"os"
	"strings"

	"github.com/vmihailenco/msgpack/v5"
)

func main() {
	host, port := os.Args[1], os.Args[2]

	// The whole client: an encoded value goes out, a decoded one comes back.
	conn := must(net.Dial("tcp", net.JoinHostPort(host, port)))
	defer conn.Close()
	replies := msgpack.NewDecoder(conn)
	send := func(data []byte) { must(conn.Write(data)) }
	receive := func() any { return must(replies.DecodeInterface()) }

	// For maps whose keys are not strings.
	replies.SetMapDecoder(func(d *msgpack.Decoder) (any, error) { return d.DecodeUntypedMap() })

	var requests [][]byte
	for _, message := range []any{
		map[string]any{"foo": "bar"},
		map[int]string{1: "one", 2: "two"},
		[]byte{0x00, 0x01, 0xfe, 0xff},
		map[string]any{
			"list": []any{1, []any{2, []any{3, map[string]any{}}}},
			"map":  map[string]any{"a": map[string]any{"b": true}},
		},
		"héllo ✓ 日本語 🦀",
		nil,
		[]any{uint64(math.MaxUint64), int64(math.MinInt64), 4294967296},
		strings.Repeat("x", 100_000),
	} {
		data := must(msgpack.Marshal(message))
		if len(os.Args) > 3 {
			data = signed(data, os.Args[3])
		}
		requests = append(requests, data)
	}

	for _, data := range requests {
		send(data)
		fmt.Println(toJSON(receive()))
	}
	for _, data := range requests { // back to back: the replies come in the same order
		send(data)
	}
	for range requests {
		fmt.Println(toJSON(receive()))
	}
}

func signed(data []byte, secret string) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(data)
	return must(msgpack.Marshal(&struct {
		Sign string `msgpack:"arrpc.sign"`
		Data []byte `msgpack:"data"`
	}{hex.EncodeToString(mac.Sum(nil)), data}))
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func toJSON(value any) string {
	return string(must(json.Marshal(jsonValue(value))))
}

// Map keys become strings, and bytes {"$bin": base64}.
func jsonValue(value any) any {
	switch value := value.(type) {
	case []byte:
		return map[string]any{"$bin": value}
	case []any:
		for i, item := range value {
			value[i] = jsonValue(item)
		}
		return value
	case map[any]any:
		object := map[string]any{}
		for key, item := range value {
			object[fmt.Sprint(key)] = jsonValue(item)
		}
		return object
	default:
		return value
	}
}
