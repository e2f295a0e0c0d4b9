// The peer of wgpy's own TCP/IP stack: the same measurements through wireguard-go with gVisor's.
//
// gvisor MEASURE ADDRESS PORT COUNT takes the tunnel's configuration on standard input, as the first line its own
// address and then what the userspace API sets, and prints what it measured. gvisor serve ADDRESS PORT is the HTTP
// server at the other end: GET /N answers N bytes, POST / takes all that comes.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/netstack"
)

const (
	mtu   = 1420
	chunk = 1 << 18
)

func main() {
	address := net.JoinHostPort(os.Args[2], os.Args[3])
	if os.Args[1] == "serve" {
		serve(address)
		return
	}
	count, err := strconv.Atoi(os.Args[4])
	check(err)
	network, err := io.ReadAll(os.Stdin)
	check(err)
	own, uapi, _ := strings.Cut(string(network), "\n")
	tunnel, stack, err := netstack.CreateNetTUN([]netip.Addr{netip.MustParseAddr(own)}, nil, mtu)
	check(err)
	dev := device.NewDevice(tunnel, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, ""))
	check(dev.IpcSet(uapi))
	check(dev.Up())
	fmt.Println(measure(os.Args[1], count, func() net.Conn {
		connection, err := stack.DialContext(context.Background(), "tcp", address)
		check(err)
		return connection
	}))
	dev.Close()
}

// measure returns bytes or requests per second, or kilobytes.
func measure(what string, count int, dial func() net.Conn) float64 {
	get(dial(), 0) // the handshake
	begin := time.Now()
	switch what {
	case "download":
		get(dial(), count)
	case "downloads": // 50 at once
		together(50, func() { get(dial(), count/50) })
	case "upload":
		post(dial(), count)
	case "requests": // on one connection
		requests(dial(), count)
	case "requests16": // on 16 connections
		together(16, func() { requests(dial(), count/16) })
	case "connections": // each with one request, 16 at once
		together(16, func() {
			for range count / 16 {
				connection := dial()
				get(connection, 0)
				connection.Close()
			}
		})
	case "start":
		return resident()
	case "idle":
		before := resident()
		connections := make([]net.Conn, count)
		for i := range connections {
			connections[i] = dial()
		}
		each := (resident() - before) / float64(count)
		for _, connection := range connections {
			connection.Close()
		}
		return each
	default:
		log.Fatalf("unknown: %s", what)
	}
	return float64(count) / time.Since(begin).Seconds()
}

func together(count int, do func()) {
	var group sync.WaitGroup
	for range count {
		group.Add(1)
		go func() {
			defer group.Done()
			do()
		}()
	}
	group.Wait()
}

func requests(connection net.Conn, count int) {
	reader := bufio.NewReaderSize(connection, chunk)
	for range count {
		ask(connection, reader, 0)
	}
}

func get(connection net.Conn, size int) {
	// As long as net/http's, for an answer that is short: each connection would pay for a long one.
	ask(connection, bufio.NewReaderSize(connection, min(chunk, max(4096, size))), size)
}

// ask sends one request and reads its answer, all of it.
func ask(connection net.Conn, reader *bufio.Reader, size int) {
	_, err := fmt.Fprintf(connection, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", size)
	check(err)
	expect(reader, size)
}

func post(connection net.Conn, size int) {
	_, err := fmt.Fprintf(connection, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)
	check(err)
	block := make([]byte, chunk)
	for left := size; left > 0; left -= chunk {
		_, err := connection.Write(block[:min(chunk, left)])
		check(err)
	}
	expect(bufio.NewReader(connection), 0)
}

func expect(reader *bufio.Reader, size int) {
	length := -1
	for {
		line, err := reader.ReadString('\n')
		check(err)
		if value, found := strings.CutPrefix(line, "Content-Length: "); found {
			length, err = strconv.Atoi(strings.TrimSpace(value))
			check(err)
		}
		if line == "\r\n" {
			break
		}
	}
	if length != size {
		log.Fatalf("%d bytes came, not %d", length, size)
	}
	_, err := io.CopyN(io.Discard, reader, int64(size))
	check(err)
}

// resident returns this process's memory in kilobytes.
func resident() float64 {
	status, err := os.ReadFile("/proc/self/status")
	check(err)
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kilobytes, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
	check(err)
	return kilobytes
}

func serve(address string) {
	block := make([]byte, chunk)
	listener, err := net.Listen("tcp", address)
	check(err)
	fmt.Println("ready")
	check(http.Serve(listener, http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		_, err := io.Copy(io.Discard, request.Body)
		check(err)
		size, _ := strconv.Atoi(strings.TrimPrefix(request.URL.Path, "/"))
		answer.Header().Set("Content-Length", strconv.Itoa(size))
		for left := size; left > 0; left -= chunk {
			if _, err := answer.Write(block[:min(chunk, left)]); err != nil {
				return
			}
		}
	})))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
