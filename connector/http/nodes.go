package http

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Node is one ingest server, and the log that it owns.
type Node struct {
	// Name is the log's name for ever, and the split's. At most 64 letters, digits and ".-_:".
	Name string
	// URL is where the server is reached: http or https, host and port. It may change while the name stays.
	URL string
}

const maxName = 64

// checkNodes tells what is wrong with a list of servers.
func checkNodes(nodes []Node) error {
	if len(nodes) == 0 {
		return fmt.Errorf("http: no ingest server is named")
	}
	for i, n := range nodes {
		if !validName(n.Name) {
			return fmt.Errorf("http: %q is no name for an ingest server: want 1 to %d letters, digits, or one of .-_: in it", n.Name, maxName)
		}
		if slices.ContainsFunc(nodes[:i], func(o Node) bool { return o.Name == n.Name || o.URL == n.URL }) {
			return fmt.Errorf("http: ingest server %s is listed twice", n.Name)
		}
		u, err := url.Parse(n.URL)
		if err != nil {
			return fmt.Errorf("http: ingest server %s: its URL cannot be read", n.Name) // the URL may hold a secret
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("http: ingest server %s: want http://host:port or https://host:port", n.Name)
		}
	}
	return nil
}

func validName(name string) bool {
	if name == "" || len(name) > maxName || strings.Trim(name, ".") == "" {
		return false
	}
	for _, c := range []byte(name) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(".-_:", c) >= 0
		if !ok {
			return false
		}
	}
	return true
}

// indexOf finds a server by name, -1 if it is not listed.
func indexOf(nodes []Node, name string) int {
	return slices.IndexFunc(nodes, func(n Node) bool { return n.Name == name })
}

// keeperOf gives the server that keeps the copy of the i-th server's log: the next in the list. It is i itself if there is no other.
func keeperOf(nodes []Node, i int) int { return (i + 1) % len(nodes) }

// homeOf gives the server into whose log all requests with a key go: the one with the highest hash together with the key, so that
// a change of the list moves as few keys as possible.
func homeOf(nodes []Node, key string) int {
	best, highest := 0, uint64(0)
	var d xxhash.Digest
	for i, n := range nodes {
		d.Reset()
		_, _ = d.WriteString(n.Name) // a digest takes everything
		_, _ = d.Write([]byte{0})
		_, _ = d.WriteString(key)
		if h := d.Sum64(); i == 0 || h > highest || h == highest && n.Name < nodes[best].Name {
			best, highest = i, h
		}
	}
	return best
}
