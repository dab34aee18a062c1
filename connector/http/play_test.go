package http

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// part of a test that another process plays.
type role struct {
	Play     string
	Nodes    []Node
	Name     string
	Dir      string
	Receiver string
	Records  int
}

// play is what the test binary does when it is started to play a part.
func play(text string) int {
	var r role
	err := json.Unmarshal([]byte(text), &r)
	if err == nil {
		switch r.Play {
		case "ingest":
			err = playIngest(&r)
		case "job":
			err = playJob(&r)
		default:
			err = fmt.Errorf("no part %q", r.Play)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// playIngest is an ingest server until its parent closes its input, or dies.
func playIngest(r *role) error {
	s, err := Listen(ServerOptions{
		Nodes: r.Nodes, Name: r.Name, Dir: r.Dir, AckTimeout: 500 * time.Millisecond, SegmentBytes: 16 << 10,
		Failed: func(err error) { fmt.Fprintln(os.Stderr, r.Name, "failed:", err) },
	})
	if err != nil {
		return err
	}
	fmt.Println("listening")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return s.Close()
}

// process is a part in a process of its own.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.Closer
	lines *bufio.Scanner // of its output
}

func start(t testing.TB, r role) *process {
	text, err := json.Marshal(r)
	require.NoError(t, err)
	p := &process{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), "HTTP_TEST_ROLE="+string(text))
	p.cmd.Stderr = os.Stderr
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	p.lines = bufio.NewScanner(out)
	return p
}

// says waits for the process's next line.
func (p *process) says(want string) {
	require.True(p.t, p.lines.Scan(), "the process has ended and not said %q", want)
	require.Equal(p.t, want, p.lines.Text())
}

// kill is kill -9.
func (p *process) kill() {
	require.NoError(p.t, p.cmd.Process.Kill())
	_ = p.cmd.Wait() // it says that it was killed
}

func (p *process) signal(s os.Signal) { require.NoError(p.t, p.cmd.Process.Signal(s)) }

// poster posts requests, each again and again until it is acknowledged, to whichever server.
type poster struct {
	number   int
	nodes    []Node
	client   *http.Client
	requests int
	pace     time.Duration       // between two of them
	answers  map[string]Accepted // by key
	bodies   map[string]string
	repeats  int
}

func (p *poster) run(random *rand.Rand) {
	for n := range p.requests {
		key := fmt.Sprintf("%d/%d", p.number, n)
		body := ""
		for i := range 1 + random.IntN(4) {
			body += fmt.Sprintf(`{"key":"%s","line":%d}`+"\n", key, i)
		}
		p.bodies[key] = body
		if p.pace > 0 {
			<-time.After(p.pace)
		}
		for {
			s, err := post(p.client, p.nodes[random.IntN(len(p.nodes))].URL, key, body)
			if err == nil && s.status == http.StatusOK {
				p.answers[key] = s.Accepted
				if s.Duplicate {
					p.repeats++
				}
				break
			}
			<-time.After(time.Duration(random.IntN(20)) * time.Millisecond) // between tries, as a client does
		}
	}
}

// TestServersAreKilled kills and stops ingest servers while requests come and a job reads. Every acknowledged request is in its log once, in
// the place that the answer said, and what was read stays.
func TestServersAreKilled(t *testing.T) {
	t.Parallel()
	const servers, posters, requests = 3, 4, 250
	nodes, dir := freeNodes(t, servers), t.TempDir()
	processes := make([]*process, servers)
	begin := func(i int) {
		processes[i] = start(t, role{Play: "ingest", Nodes: nodes, Name: nodes[i].Name, Dir: dir})
		processes[i].says("listening")
	}
	for i := range servers {
		begin(i)
	}
	defer func() {
		for _, p := range processes {
			p.kill()
		}
	}()
	b := &bench{t: t, nodes: nodes}
	live := make([]*collector, servers)
	for i := range nodes {
		live[i] = b.collect(nodes[i].Name)
	}
	var wg sync.WaitGroup
	all := make([]*poster, posters)
	for i := range all {
		all[i] = &poster{number: i, nodes: nodes, requests: requests, answers: map[string]Accepted{}, bodies: map[string]string{}}
		all[i].client = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{}}
		defer all[i].client.CloseIdleConnections()
		wg.Go(func() { all[i].run(rand.New(rand.NewPCG(1, uint64(i)))) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	random := rand.New(rand.NewPCG(2, 2))
	kills := 0
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		case <-time.After(time.Duration(30+random.IntN(100)) * time.Millisecond):
			i := random.IntN(servers)
			if random.IntN(3) == 0 {
				processes[i].signal(syscall.SIGSTOP)
				<-time.After(time.Duration(random.IntN(800)) * time.Millisecond)
				processes[i].signal(syscall.SIGCONT)
				continue
			}
			processes[i].kill()
			kills++
			if random.IntN(4) == 0 { // two at once
				j := (i + 1) % servers
				processes[j].kill()
				begin(j)
			}
			begin(i)
		}
	}
	repeats := checkPosts(t, b, all, live)
	t.Logf("%d kills, %d requests had been taken when they came again", kills, repeats)
	require.Greater(t, kills, 3)
}

// checkPosts reads all logs from their beginning and compares.
func checkPosts(t *testing.T, b *bench, all []*poster, live []*collector) (repeats int) {
	logs := make(map[string][]string)
	for i, n := range b.nodes {
		until(t, func() bool {
			w, err := http.Post(n.URL+"/v1/end", "", nil)
			if err != nil {
				return false
			}
			defer w.Body.Close()
			return w.StatusCode == http.StatusOK
		}, "log %s ends", n.Name)
		whole := b.collect(n.Name)
		lines, err := whole.wait()
		require.NoError(t, err)
		read, err := live[i].wait()
		require.NoError(t, err)
		require.Equal(t, lines, read, "what the job has read of log %s is what is there", n.Name)
		logs[n.Name] = lines
	}
	http.DefaultClient.CloseIdleConnections()
	total := 0
	for _, p := range all {
		repeats += p.repeats
		for key, a := range p.answers {
			got := ""
			require.LessOrEqual(t, a.First+a.Lines, uint64(len(logs[a.Log])))
			for _, line := range logs[a.Log][a.First : a.First+a.Lines] {
				got += line + "\n"
			}
			require.Equal(t, p.bodies[key], got, "request %s in log %s", key, a.Log)
			total += int(a.Lines)
		}
	}
	for _, lines := range logs {
		total -= len(lines)
	}
	require.Zero(t, total, "lines acknowledged and not in a log, or in it too often")
	return repeats
}

// collector reads a log to its end.
type collector struct {
	lines []string
	err   error
	ended chan struct{}
}

func (b *bench) collect(log string) *collector {
	c := &collector{ended: make(chan struct{})}
	source := Lines(SourceOptions{Nodes: b.nodes, Wait: 200 * time.Millisecond, RetryMax: 50 * time.Millisecond})
	r, err := source.Open(b.t.Context(), log, 0)
	require.NoError(b.t, err)
	go func() {
		defer close(c.ended)
		for c.err == nil {
			line, next, err := r.Next()
			switch {
			case err == nil && next != uint64(len(c.lines))+1:
				c.err = fmt.Errorf("offset %d behind %d lines", next, len(c.lines))
			case err == nil:
				c.lines = append(c.lines, line.Text)
			case err == io.EOF:
				c.err = r.Close()
				return
			default:
				select {
				case <-r.Ready():
				case <-b.t.Context().Done():
					c.err = r.Close()
					return
				}
			}
		}
	}()
	return c
}

func (c *collector) wait() ([]string, error) {
	select {
	case <-c.ended:
		return c.lines, c.err
	case <-time.After(patience):
		return nil, fmt.Errorf("the log does not end")
	}
}
