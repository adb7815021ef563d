package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net/http"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// How long either side waits for a sign of life before the connection is over.
const idle = 2 * time.Second

func serve() error {
	certificate, err := certificate()
	if err != nil {
		return err
	}
	server := http3.Server{
		Addr:       ":443",
		TLSConfig:  &tls.Config{Certificates: []tls.Certificate{certificate}},
		QUICConfig: &quic.Config{MaxIdleTimeout: idle},
		Handler: http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
			io.Copy(answer, request.Body)
		}),
	}
	failed := make(chan error)
	go func() { failed <- server.ListenAndServe() }()
	go func() { failed <- serveWebSocket() }()
	return <-failed
}

func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key}, err
}

// The transport begins a new connection when the one that it has is over.
func overHTTP3(address string, end time.Time, saw *seen) error {
	transport := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		QUICConfig:      &quic.Config{MaxIdleTimeout: idle, KeepAlivePeriod: idle / 4, HandshakeIdleTimeout: patience},
		Dial: func(ctx context.Context, at string, security *tls.Config, config *quic.Config) (*quic.Conn, error) {
			connection, err := quic.DialAddrEarly(ctx, at, security, config)
			if err == nil {
				saw.Connections++
			}
			return connection, err
		},
	}
	defer transport.Close()
	client := http.Client{Transport: transport, Timeout: patience}
	message := make([]byte, messageSize)
	for time.Now().Before(end) {
		if answer, err := client.Post("https://"+address+"/", "application/octet-stream", bytes.NewReader(message)); err == nil {
			count, err := io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			if err == nil && count == messageSize {
				saw.answered()
			}
		}
		time.Sleep(pause)
	}
	return nil
}
