package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcdOptions are the only choices that a single etcd member on one machine leaves open.
type etcdOptions struct {
	dataDir string
	client  url.URL
	peer    url.URL
}

// runEtcd serves one etcd member until SIGTERM or SIGINT.
func runEtcd() int {
	options, err := parseEtcdOptions(os.Args[1:])
	if err == nil {
		err = serveEtcd(options)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	}
	return 0
}

func parseEtcdOptions(args []string) (etcdOptions, error) {
	flags := flag.NewFlagSet("etcd", flag.ContinueOnError)
	dataDir := flags.String("data-dir", "", "folder of the database")
	client := flags.String("listen-client-url", "http://127.0.0.1:2379", "where kube-apiserver finds it")
	peer := flags.String("listen-peer-url", "http://127.0.0.1:2380", "where other members would find it")
	if err := flags.Parse(args); err != nil {
		return etcdOptions{}, err
	}
	if *dataDir == "" {
		return etcdOptions{}, fmt.Errorf("--data-dir is required")
	}
	clientURL, err := url.Parse(*client)
	if err != nil {
		return etcdOptions{}, fmt.Errorf("--listen-client-url: %w", err)
	}
	peerURL, err := url.Parse(*peer)
	if err != nil {
		return etcdOptions{}, fmt.Errorf("--listen-peer-url: %w", err)
	}
	return etcdOptions{dataDir: *dataDir, client: *clientURL, peer: *peerURL}, nil
}

func serveEtcd(options etcdOptions) error {
	server, err := embed.StartEtcd(options.config())
	if err != nil {
		return err
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	select {
	case <-stop:
		return nil
	case err := <-server.Err():
		return err
	}
}

func (o etcdOptions) config() *embed.Config {
	config := embed.NewConfig()
	config.Name = "lab"
	config.Dir = o.dataDir
	config.ListenClientUrls = []url.URL{o.client}
	config.AdvertiseClientUrls = []url.URL{o.client}
	config.ListenPeerUrls = []url.URL{o.peer}
	config.AdvertisePeerUrls = []url.URL{o.peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.LogLevel = "warn"
	// Zero, the default of the library but not of the program, would log every request as slow.
	config.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration
	// A lab's data dies with the lab: waiting for the disk would only slow everything down.
	config.UnsafeNoFsync = true
	// A lone member need not wait for rivals before it elects itself.
	config.TickMs = 10
	config.ElectionMs = 100
	return config
}
