package dockeragent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/agentbin"
	"github.com/vmbridge/vmbridge/hostside/dockerapi"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// ErrOff is wrapped by the errors of Dial and of connections while no agent is
// wanted.
var ErrOff = errors.New("host networking is off, and so the engine has no agent")

// DialTimeout bounds Dial: it may have to load an image into a VM that is slow.
const DialTimeout = 10 * time.Minute

// retryRefused is how long Dial waits before it asks an engine again that said no:
// what has to change there is changed by hand.
const retryRefused = 5 * time.Second

// Config of a Keeper.
type Config struct {
	Context string // the command docker's, or empty
	// Home and Link say whose the agent is.
	Home, Link string
	Version    string
	Log        *logrus.Entry
	// Stderr hears what the agent writes to its standard error, line by line, made
	// safe to print.
	Stderr func(line string)
	// Isolation is told what shows that the engine isolates its containers, and nil when
	// nothing does, each time that the engine is asked. It must not block.
	Isolation func([]message.IsolationFinding)
	// AgentFlags are added to those of the agent's serve.
	AgentFlags []string
}

// Keeper keeps the agent of a link.
type Keeper struct {
	config Config
	env    dockerapi.Environment
	owner  string

	mu      sync.Mutex
	wanted  bool
	change  chan struct{} // closed when wanted changes
	current *conn         // the last one that was made
	stop    func()        // ends the Dial that is under way, or nil
	retry   time.Time     // not before
	said    string        // what has been logged of the engine
	toldOff bool
	work    sync.WaitGroup
}

// New makes a Keeper that keeps an agent once that is wanted. A build that carries no
// agents has none to keep.
func New(config Config) (*Keeper, error) {
	if !agentbin.Carried() {
		return nil, agentbin.ErrNone
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &Keeper{config: config, env: dockerapi.System(), owner: host + ":" + config.Home, change: make(chan struct{})}, nil
}

// Want says whether there is to be an agent. Where not, the one that there is ends soon.
func (k *Keeper) Want(wanted bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.wanted == wanted {
		return
	}
	k.wanted, k.toldOff, k.retry = wanted, false, time.Time{}
	close(k.change)
	k.change = make(chan struct{})
	if wanted {
		return
	}
	if k.stop != nil {
		k.stop()
	}
	if c := k.current; c != nil {
		k.current = nil
		k.work.Go(func() { _ = c.Close() }) // its reader says so
	}
}

// Close waits until what Want has ended has gone.
func (k *Keeper) Close() {
	k.Want(false)
	k.work.Wait()
}

func (k *Keeper) off() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.wanted
}

// Dial starts the agent. Its errors are one line each, and the same as long as the
// reason is.
func (k *Keeper) Dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := k.begin(ctx, cancel); err != nil {
		return nil, err
	}
	c, err := k.start(ctx)
	k.mu.Lock()
	k.stop = nil
	wanted := k.wanted
	switch {
	case err == nil && wanted:
		k.current = c
	case errors.Is(err, ErrIsolated), errors.Is(err, ErrOther), errors.Is(err, agentbin.ErrArchitecture):
		k.retry = time.Now().Add(retryRefused)
	}
	k.mu.Unlock()
	switch {
	case err == nil && wanted:
		return c, nil
	case err == nil:
		_ = c.Close()
		return nil, ErrOff
	case !wanted:
		return nil, ErrOff
	}
	return nil, err
}

// begin waits until an agent is wanted and the engine may be asked.
func (k *Keeper) begin(ctx context.Context, stop func()) error {
	for {
		k.mu.Lock()
		wait := time.Until(k.retry)
		if k.wanted && wait <= 0 {
			k.stop = stop
			k.mu.Unlock()
			return nil
		}
		if !k.wanted && !k.toldOff {
			k.toldOff = true
			k.mu.Unlock()
			return ErrOff
		}
		change, due := k.change, (<-chan time.Time)(nil)
		if k.wanted {
			due = time.After(wait)
		}
		k.mu.Unlock()
		select {
		case <-change:
		case <-due:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// start finds the engine and starts the agent there.
func (k *Keeper) start(ctx context.Context) (_ *conn, err error) {
	found, err := dockerapi.Find(ctx, k.env, k.config.Context)
	if err != nil {
		k.say(err.Error(), passedOf(err))
		return nil, err
	}
	cli := found.Client
	defer func() {
		if err != nil {
			_ = cli.Close() // nothing was written
			err = oneLine(err)
		}
	}()
	k.say(found.Host+found.Source, found.Passed, func(log *logrus.Entry) {
		log.WithFields(logrus.Fields{"engine": found.Host, "named_by": found.Source}).Info("the container engine answers")
	})
	info, err := ask(ctx, cli)
	if err != nil {
		return nil, err
	}
	if evidence := isolation(info); len(evidence) > 0 {
		k.config.Isolation(evidence)
		return nil, fmt.Errorf("%w: %s", ErrIsolated, evidence[0].Detail)
	}
	i, err := imageFor(info)
	if err != nil {
		return nil, err
	}
	loaded, err := ensureImage(ctx, cli, i)
	if err != nil {
		return nil, err
	}
	if loaded {
		k.config.Log.WithField("image", i.ref()).Info("the image of the agent is loaded")
	}
	c, err := k.run(ctx, cli, found.Host, i)
	if cerrdefs.IsPermissionDenied(err) {
		k.config.Isolation(unprivileged(err))
		return nil, fmt.Errorf("%w: %w", ErrIsolated, err)
	}
	if err != nil {
		return nil, err
	}
	k.config.Isolation(nil)
	k.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
		defer cancel()
		if err := removeOldImages(ctx, cli, i); err != nil {
			k.config.Log.WithError(oneLine(err)).Debug("images of other versions stay")
		}
	})
	return c, nil
}

// ask asks the engine about itself.
func ask(ctx context.Context, cli *client.Client) (system.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	about, err := cli.Info(ctx, client.InfoOptions{})
	if err != nil {
		return system.Info{}, fmt.Errorf("ask the engine about itself: %w", err)
	}
	if about.Info.OSType != "" && about.Info.OSType != "linux" {
		return system.Info{}, fmt.Errorf("this engine runs containers of %s: switch it to those of Linux", clean(about.Info.OSType))
	}
	return about.Info, nil
}

// imageFor is the image for an engine's machine, which it names as uname does.
func imageFor(info system.Info) (image, error) {
	goarch := map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[info.Architecture]
	if goarch == "" {
		goarch = clean(info.Architecture)
	}
	digest, err := agentbin.Digest(goarch)
	if err != nil {
		return image{}, err
	}
	return image{goarch: goarch, digest: digest}, nil
}

// run runs the agent.
func (k *Keeper) run(ctx context.Context, cli *client.Client, host string, i image) (_ *conn, err error) {
	s := spec{image: i, version: k.config.Version, home: k.owner, link: k.config.Link,
		notIn: ownNetwork(host), agentFlags: k.config.AgentFlags}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	id, err := create(ctx, cli, s)
	if err != nil {
		return nil, fmt.Errorf("create the agent's container: %w", err)
	}
	living, end := context.WithCancel(context.WithoutCancel(ctx)) // as long as the connection
	starting := context.AfterFunc(ctx, end)
	var attached net.Conn
	defer func() {
		if err == nil {
			return
		}
		end()
		if attached != nil {
			_ = attached.Close()
		}
		// Even where ctx has ended.
		ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
		defer cancel()
		err = errors.Join(err, remove(ctx, cli, id))
	}()
	// Attached before it starts: nothing that it says is lost.
	hijacked, err := cli.ContainerAttach(ctx, id, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		return nil, fmt.Errorf("attach to the agent's container: %w", err)
	}
	attached = hijacked.Conn
	waiting := cli.ContainerWait(living, id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	if _, err := cli.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		go drain(waiting)
		return nil, fmt.Errorf("start the agent's container: %w", err)
	}
	if !starting() {
		go drain(waiting)
		return nil, ctx.Err()
	}
	return newConn(cli, id, host, attached, waiting, end, k.config.Stderr, k.off), nil
}

// drain takes the one answer of a wait that nobody is interested in, so that the
// client's goroutine ends.
func drain(w client.ContainerWaitResult) {
	select {
	case <-w.Result:
	case <-w.Error:
	}
}
