module arpeggio.dev/streams

go 1.26.0

require (
	github.com/gorilla/websocket v1.5.3
	github.com/quic-go/quic-go v0.62.0
)

require (
	github.com/quic-go/qpack v0.6.0 // indirect
	golang.org/x/crypto v0.54.0 // indirect
	golang.org/x/net v0.56.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.40.0 // indirect
)
