package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// InspectOff as NodeOptions.Inspect serves nothing.
const InspectOff = "off"

// headerTimeout bounds how long a client may take to say what it wants.
const headerTimeout = 5 * time.Second

// Health is what a process says of itself at /healthz.
type Health struct {
	Role    string   `json:"role"`
	Healthy bool     `json:"healthy"`
	Why     []string `json:"why"` // it is not
}

// inspector serves what people and machines want to see of a process, on an address of its own: /metrics for Prometheus,
// /healthz (200 or 503 with a Health), and /debug/pprof/. It asks for no secret and belongs on a loopback address.
type inspector struct {
	server *http.Server
	done   chan struct{}
}

// inspect begins to serve on an address; nil if that is InspectOff.
func inspect(o *NodeOptions, health func() Health, c prometheus.Collector) (*inspector, error) {
	if o.Inspect == InspectOff {
		return nil, nil
	}
	l, err := net.Listen("tcp", o.Inspect)
	if err != nil {
		return nil, fmt.Errorf("cluster: metrics: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		h := health()
		w.Header().Set("Content-Type", "application/json")
		if !h.Healthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		if err := json.NewEncoder(w).Encode(h); err != nil {
			o.Logger.Debug("answering a health check", "error", err)
		}
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	i := &inspector{server: &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}, done: make(chan struct{})}
	go func() {
		defer close(i.done)
		if err := i.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			o.Logger.Warn("metrics are no longer served", "error", err)
		}
	}()
	o.Logger.Info("metrics, health and profiles", "url", "http://"+l.Addr().String())
	if o.Inspecting != nil {
		o.Inspecting(l.Addr().String())
	}
	return i, nil
}

// close ends the serving. Requests under way are cut off.
func (i *inspector) close() error {
	if i == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := i.server.Shutdown(ctx)
	if errors.Is(err, context.Canceled) {
		err = i.server.Close()
	}
	<-i.done
	return err
}

// family describes one kind of measurement and makes values of it.
type family struct{ desc *prometheus.Desc }

func newFamily(name, help string, labels ...string) family {
	return family{desc: prometheus.NewDesc("understudy_"+name, help, labels, nil)}
}

func (f family) gauge(ch chan<- prometheus.Metric, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, v, labels...)
}

func (f family) counter(ch chan<- prometheus.Metric, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(f.desc, prometheus.CounterValue, v, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
