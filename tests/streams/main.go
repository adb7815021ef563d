// Streams holds connections of the kinds that stay open: WebSocket over TCP, and HTTP/3 over QUIC.
//
// `streams serve` sends back what it is sent, on port 80 by WebSocket and on port 443 by HTTP/3. `streams websocket ADDRESS
// SECONDS [PATIENCE]` and `streams http3 ADDRESS SECONDS [PATIENCE]` send it something again and again and print what they saw as JSON.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"
)

// How much is sent at a time: several frames of any size.
const messageSize = 16 << 10

// How long is between an answer and the next message.
const pause = 20 * time.Millisecond

// How long a client waits for an answer, and for a new connection, before it begins anew; one second where nothing else is said.
var patience = time.Second

// What a client saw.
type seen struct {
	// The longest time without an answer, in milliseconds.
	LongestMs   int64 `json:"longest_ms"`
	Connections int   `json:"connections"`
	Answers     int   `json:"answers"`

	last time.Time
}

func (s *seen) answered() {
	s.Answers++
	s.look()
	s.last = time.Now()
}

func (s *seen) look() {
	s.LongestMs = max(s.LongestMs, time.Since(s.last).Milliseconds())
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "serve" {
		return serve()
	}
	if len(args) != 3 && len(args) != 4 {
		return fmt.Errorf("streams serve, or streams websocket|http3 ADDRESS SECONDS [PATIENCE]")
	}
	if len(args) == 4 {
		given, err := time.ParseDuration(args[3])
		if err != nil {
			return err
		}
		patience = given
	}
	seconds, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ask := map[string]func(string, time.Time, *seen) error{"websocket": overWebSocket, "http3": overHTTP3}[args[0]]
	if ask == nil {
		return fmt.Errorf("websocket or http3, not %s", args[0])
	}
	saw := seen{last: time.Now()}
	if err := ask(args[1], time.Now().Add(time.Duration(seconds)*time.Second), &saw); err != nil {
		return err
	}
	saw.look()
	return json.NewEncoder(os.Stdout).Encode(saw)
}
