package main

import (
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

func serveWebSocket() error {
	upgrader := websocket.Upgrader{}
	return http.ListenAndServe(":80", http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		connection, err := upgrader.Upgrade(answer, request, nil)
		if err != nil {
			return
		}
		defer connection.Close()
		for {
			kind, message, err := connection.ReadMessage()
			if err != nil || connection.WriteMessage(kind, message) != nil {
				return
			}
		}
	}))
}

// Begins a new connection whenever the one that it has is broken, or silent for too long.
func overWebSocket(address string, end time.Time, saw *seen) error {
	dialer := websocket.Dialer{HandshakeTimeout: patience}
	for time.Now().Before(end) {
		connection, _, err := dialer.Dial("ws://"+address+"/", nil)
		if err == nil {
			saw.Connections++
			talk(connection, end, saw)
			connection.Close()
		}
		time.Sleep(pause)
	}
	return nil
}

func talk(connection *websocket.Conn, end time.Time, saw *seen) {
	message := make([]byte, messageSize)
	for time.Now().Before(end) {
		deadline := time.Now().Add(patience)
		connection.SetWriteDeadline(deadline)
		connection.SetReadDeadline(deadline)
		if connection.WriteMessage(websocket.BinaryMessage, message) != nil {
			return
		}
		if _, _, err := connection.ReadMessage(); err != nil {
			return
		}
		saw.answered()
		time.Sleep(pause)
	}
}
