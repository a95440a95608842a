package isolation

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

const (
	// lookEvery is how often processes and sockets are looked at. Waking up is
	// most of what a look costs.
	lookEvery = time.Second
	// firstAnswers is how long Ready waits for engines.
	firstAnswers = 300 * time.Millisecond
	// maxText bounds a finding's text, in bytes.
	maxText = 512
)

// Config of a Watcher.
type Config struct {
	// EngineSockets are API sockets of engines besides the usual ones and those of
	// the engines that run.
	EngineSockets []string

	// sysbox is what its processes are called. Only tests set it, so as not to
	// disturb each other.
	sysbox names
}

// Watcher collects evidence.
type Watcher struct {
	config    Config
	processes *processes
	engines   map[socketID]*followed // belongs to Run
	work      sync.WaitGroup         // the engines' goroutines
	ready     chan struct{}

	mu       sync.Mutex
	own      evidence // of the agent's own user namespace
	running  evidence // of processes
	surplus  evidence // of sockets that are too many
	followed []*followed
	report   message.Isolation
	changed  chan struct{}
}

// evidence is a part of the report.
type evidence struct {
	findings   []message.IsolationFinding
	incomplete []string
}

func (e *evidence) found(kind, format string, args ...any) {
	e.findings = append(e.findings, message.IsolationFinding{Kind: kind, Detail: message.Clean(fmt.Sprintf(format, args...), maxText)})
}

func (e *evidence) missed(what string, err error) {
	e.incomplete = append(e.incomplete, message.Clean(fmt.Sprintf("%s: %v", what, err), maxText))
}

// New makes a Watcher that has looked at everything but engines.
func New(cfg Config) *Watcher {
	w := &Watcher{
		config:    cfg,
		processes: newProcesses(cmp.Or(cfg.sysbox, sysboxNames())),
		engines:   map[socketID]*followed{},
		ready:     make(chan struct{}),
		own:       ownNamespace(),
		changed:   make(chan struct{}),
	}
	w.processes.look(time.Now())
	w.running = w.processes.evidence()
	w.report = w.compose()
	return w
}

// Run follows what changes until ctx ends. It may run once.
func (w *Watcher) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer w.processes.close()
	defer w.work.Wait()
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	started := w.lookForEngines(ctx, time.Now(), true)
	w.work.Go(func() { w.waitForFirst(ctx, started) })
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			changed, engines := w.processes.look(now)
			if changed {
				w.tell(&w.running, w.processes.evidence())
			}
			w.lookForEngines(ctx, now, engines)
		}
	}
}

// waitForFirst waits for the engines that were there at the start, for a while.
func (w *Watcher) waitForFirst(ctx context.Context, engines []*followed) {
	defer close(w.ready)
	late := time.NewTimer(firstAnswers)
	defer late.Stop()
	for _, e := range engines {
		select {
		case <-e.asked:
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Ready is closed once the engines that were there when Run began have been
// asked, and at the latest after 300 ms.
func (w *Watcher) Ready() <-chan struct{} { return w.ready }

// Report tells what is known, and gives a channel that is closed when that
// changes. The report is not to be changed.
func (w *Watcher) Report() (message.Isolation, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.report, w.changed
}

// tell replaces a part of the report.
func (w *Watcher) tell(part *evidence, now evidence) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*part = now
	w.settle()
}

// settle has the report follow its parts. mu is held.
func (w *Watcher) settle() {
	report := w.compose()
	if reflect.DeepEqual(report, w.report) {
		return
	}
	w.report = report
	close(w.changed)
	w.changed = make(chan struct{})
}

// order is that of the report, which may be cut: what an engine does for all its
// containers comes before what one container has.
var order = [...]string{
	message.IsolationUserNamespace,
	message.IsolationSysboxProcess,
	message.IsolationDefaultRuntime,
	message.IsolationContainerRuntime,
}

// compose puts the parts together. mu is held.
func (w *Watcher) compose() message.Isolation {
	parts := []evidence{w.own, w.running}
	for _, f := range w.followed {
		parts = append(parts, f.evidence)
	}
	parts = append(parts, w.surplus)
	var all message.Isolation
	for _, part := range parts {
		all.Findings = append(all.Findings, part.findings...)
		all.Incomplete = append(all.Incomplete, part.incomplete...)
	}
	slices.SortFunc(all.Findings, func(a, b message.IsolationFinding) int {
		return cmp.Or(
			cmp.Compare(slices.Index(order[:], a.Kind), slices.Index(order[:], b.Kind)),
			cmp.Compare(a.Detail, b.Detail))
	})
	slices.Sort(all.Incomplete)
	all.Findings = all.Findings[:min(len(all.Findings), message.MaxIsolationEntries)]
	all.Incomplete = all.Incomplete[:min(len(all.Incomplete), message.MaxIsolationEntries)]
	return all
}
