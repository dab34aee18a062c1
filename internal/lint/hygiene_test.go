package lint

import (
	"strings"
	"testing"
)

func TestSleepsPlanted(t *testing.T) {
	const src = `package p

import "time"

func F(d time.Duration) {
	time.Sleep(d)
	<-time.After(d)
}
`
	wantFindings(t, checkSleeps(plant(t, files{
		"cluster/x.go":      src,
		"cluster/x_test.go": src,
		"cluster/y_test.go": "package p\n\nimport t \"time\"\n\nvar _ = t.Sleep\n",
	})),
		"cluster/x_test.go:6: in F: time.Sleep in a test",
		"cluster/y_test.go:5: time.Sleep in a test",
	)
}

func TestSkipsPlanted(t *testing.T) {
	wantFindings(t, checkSkips(plant(t, files{"task/x_test.go": `package task

import "testing"

type skipper struct{}

func (skipper) Skip(n ...int) {}

func TestA(t *testing.T, reason string, s skipper) {
	t.Skip("needs two processors")
	t.Skipf("needs %d processors", 2)
	t.Skip(reason)
	s.Skip()
	t.Skip()
	t.Skip("")
	t.Skipf("flaky")
	t.SkipNow()
}

func prepare(tb testing.TB) { tb.SkipNow() }

var fuzz = func(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) { t.Skip() }) }
`})),
		"task/x_test.go:14: in TestA: skips",
		"task/x_test.go:15: in TestA: skips",
		"task/x_test.go:16: in TestA: skips",
		"task/x_test.go:17: in TestA: skips",
		"task/x_test.go:20: in prepare: skips",
		"task/x_test.go:22: skips",
	)
}

func TestTracesPlanted(t *testing.T) {
	dir := func(parts ...string) string { return "/" + strings.Join(parts, "/") + "/x" }
	host := func(labels ...string) string { return "https://" + strings.Join(labels, ".") + "/x" }
	wantFindings(t, checkTraces(plant(t, files{
		"README.md":       "see " + dir("work", "main") + "\nand (" + dir("root") + ")\n",
		"task/x.go":       "package task // \"" + dir("home", "me") + "\"\n",
		"testdata/x.txt":  dir("work") + "\n",
		"docs/hosts.md":   host("proxy", "golang", "org") + "\n" + host("sum", "golang", "org") + "\n" + host("PyPI", "org") + "\n",
		"docs/debian.md":  host("deb", "debian", "org") + "\n",
		"docs/sibling.md": ".." + "/shared" + "/model\n",
		"go.sum":          host("sum", "golang", "org") + "\n",
		"docs/good.md": "internal" + dir("work") + " src" + dir("root") + " $(HOME)" + dir("work") + " <root>/x **" + dir("work") + " " + dir("working") + " /home page\n" +
			host("pkg", "go", "dev") + " " + host("golang", "org") + " " + host("copypi", "org") + "\n",
	})),
		`README.md:1: "/`+`work/": a folder of one machine`,
		`README.md:2: "(/`+`root/": a home folder`,
		`docs/debian.md:1: "/deb`+`.debian.org": a registry`,
		`docs/hosts.md:1: "/proxy`+`.golang.org": a registry`,
		`docs/hosts.md:2: "/sum`+`.golang.org": a registry`,
		`docs/hosts.md:3: "/PyPI`+`.org": a registry`,
		`docs/sibling.md:1: "../shared`+`/": a folder beside one checkout`,
		`task/x.go:1: "\"/`+`home/me/": a home folder`,
		`testdata/x.txt:1: "/`+`work/": a folder of one machine`,
	)
}
