# ipsec-west.sh KEY KEY: ESP between two networks, with a key for each direction, west's first.
out="src 198.51.100.1 dst 203.0.113.1 proto esp"
in="src 203.0.113.1 dst 198.51.100.1 proto esp"
ip xfrm state add $out spi 0x1001 mode tunnel aead "rfc7539esp(chacha20,poly1305)" "$1" 128
ip xfrm state add $in spi 0x1002 mode tunnel aead "rfc7539esp(chacha20,poly1305)" "$2" 128
ip xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/24 dir out tmpl $out mode tunnel
ip xfrm policy add src 10.2.0.0/24 dst 10.1.0.0/24 dir in tmpl $in mode tunnel
ip xfrm policy add src 10.2.0.0/24 dst 10.1.0.0/24 dir fwd tmpl $in mode tunnel
