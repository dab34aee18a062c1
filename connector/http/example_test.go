package http_test

import (
	"context"
	"fmt"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/understudy-stream/understudy/connector/http"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

func ExampleListen() {
	dir, _ := os.MkdirTemp("", "ingest")
	defer os.RemoveAll(dir)
	address := httptest.NewUnstartedServer(nil).Listener
	url := "http://" + address.Addr().String()
	address.Close()
	server, err := http.Listen(http.ServerOptions{Nodes: []http.Node{{Name: "a", URL: url}}, Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	fmt.Println(server.Name(), server.Status().Log.Lines)
	// Output: a 0
}

func ExampleFromURL() {
	server, source, err := http.FromURL("http://10.0.0.1:8080,10.0.0.2:8080/?dir=/var/lib/ingest&token-env=INGEST_TOKEN")
	fmt.Println(server.Dir, len(source.Nodes), err)
	splits, _ := http.Lines(source).Splits(context.Background())
	fmt.Println(splits)
	// Output:
	// /var/lib/ingest 2 <nil>
	// [10.0.0.1:8080 10.0.0.2:8080]
}

func ExampleNewWebhook() {
	receiver := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		body, _ := io.ReadAll(r.Body)
		_, rest, _ := strings.Cut(string(body), "-") // an id begins with the name of the job's run
		fmt.Print(rest)
	}))
	defer receiver.Close()
	dir, _ := os.MkdirTemp("", "webhook")
	defer os.RemoveAll(dir)
	ctx := context.Background()
	sink := http.NewWebhook(receiver.URL, http.WebhookOptions{Dir: dir, Identity: "example"})
	store, _ := sink.Open(ctx, 0, 1) // what follows is what the engine does
	defer store.Close()
	_, _ = store.Fence(ctx, operator.Fence{Incarnation: 1})
	_ = store.Write(ctx, 1, operator.StoreWrite{
		End:     determinant.Cursor{Next: 1, Epoch: 1, Bytes: 7},
		Records: [][]byte{[]byte(`{"n":1}`)},
		Delta:   []byte("determinants"),
	})
	// Output: 0-0-0","record":{"n":1}}
}
