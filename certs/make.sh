#!/bin/sh
# Makes the test certificates beside this script with openssl. Does nothing if all of them are there:
# to renew them, remove *.crt and *.key first.
set -eu
cd "$(dirname "$0")"

complete=yes
for name in ca server server-rsa client self-signed other stranger; do
    [ -s "$name.crt" ] && [ -s "$name.key" ] || complete=no
done
[ -s other-ca.crt ] || complete=no
[ "$complete" = no ] || exit 0

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
days=36500

ec_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
rsa_key() { openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1"; }

# authority KEY CRT CN: a certificate that may only sign others.
authority() {
    ec_key "$1"
    openssl req -x509 -key "$1" -out "$2" -days "$days" -subj "/CN=$3" \
        -addext keyUsage=critical,keyCertSign,cRLSign
}

# self_signed NAME: what `openssl req -x509` makes when not told otherwise: CA:TRUE, and no subjectAltName.
self_signed() {
    ec_key "$1.key"
    openssl req -x509 -key "$1.key" -out "$1.crt" -days "$days" -subj /CN=localhost
}

# issue NAME CA_CRT CA_KEY CN USAGE SAN: a certificate for NAME.key.
issue() {
    cat >"$scratch/extensions" <<EOF
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $5
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = $6
EOF
    openssl req -new -key "$1.key" -subj "/CN=$4" |
        openssl x509 -req -CA "$2" -CAkey "$3" -CAserial "$scratch/serial" -CAcreateserial \
            -days "$days" -extfile "$scratch/extensions" -out "$1.crt"
}

authority ca.key ca.crt "arrpc test CA"
authority "$scratch/other-ca.key" other-ca.crt "another test CA"

names=DNS:localhost,IP:127.0.0.1,IP:::1
ec_key server.key
issue server ca.crt ca.key localhost serverAuth "$names"
rsa_key server-rsa.key
issue server-rsa ca.crt ca.key localhost serverAuth "$names"
ec_key client.key
issue client ca.crt ca.key test-client clientAuth DNS:test-client.example
ec_key stranger.key
issue stranger other-ca.crt "$scratch/other-ca.key" test-client clientAuth DNS:test-client.example

self_signed self-signed
self_signed other
