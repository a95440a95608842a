package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// Backend is the daemon, as the control socket sees it. All methods may be
// called at once.
type Backend interface {
	Status() Status
	// Ports lists what the guests listen on, sorted as it is to be shown.
	Ports() []Port
	// Reached lists the ports of this machine's loopback that guests have used.
	Reached() []ReachedPort
	// Changed returns a channel that is closed when what Ports returns has
	// changed in more than its counters since the call of Changed.
	Changed() <-chan struct{}
	// Key gives the key of a link in the form that the guest's file holds.
	// Errors wrap ErrNotFound.
	Key(link string) (string, error)
	// Sandbox tells where the sandbox guest of a link lives; with an empty
	// name, the only one. Errors wrap ErrNotFound.
	Sandbox(link string) (Sandbox, error)
	Keeper
}

// Keeper keeps the settings. Errors wrap ErrRefused where policy or isolation
// forbids a change, and ErrInvalid where the key or the value is wrong.
type Keeper interface {
	// Settings lists what applies.
	Settings() Settings
	// SetEnabled turns host networking on or off, and keeps that over restarts.
	SetEnabled(ctx context.Context, enabled bool) error
	// Set and Unset change the user's file. When they return, the change is in
	// force.
	Set(ctx context.Context, key, value string) error
	Unset(ctx context.Context, key string) error
}

// maxValue bounds the text of a setting, in bytes of JSON.
const maxValue = 256 << 10

// Server is a claimed home and its control socket.
type Server struct {
	lock   *os.File
	l      net.Listener
	logger *logrus.Logger

	close    sync.Once
	closeErr error
}

// Listen makes the home where it does not exist, claims it and opens its
// control socket. Clients wait from here on; Serve answers them. The error is
// a *RunningError when another daemon has the home.
func Listen(home string, logger *logrus.Logger) (*Server, error) {
	if _, err := SocketPath(home); err != nil {
		return nil, err
	}
	if err := MakeHome(home); err != nil {
		return nil, err
	}
	lock, err := claim(home)
	if err != nil {
		return nil, err
	}
	l, err := listen(home)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &Server{lock: lock, l: l, logger: logger}, nil
}

// shutdownGrace is how long answers may take after the end of Serve's context.
const shutdownGrace = time.Second

// Serve answers requests until ctx ends or Close is called, which is no error;
// then it ends every request, waits for them and returns. It may be called
// once.
func (s *Server) Serve(ctx context.Context, backend Backend) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler: routes(backend),
		// Requests, watches above all, end with ctx.
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(&peerListener{Listener: s.l, logger: s.logger}) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
	}
	cancel()
	grace, done := context.WithTimeout(context.Background(), shutdownGrace)
	defer done()
	if server.Shutdown(grace) != nil {
		server.Close()
	}
	if err == nil || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("control socket: %w", err)
}

// Close removes the socket and gives the home back.
func (s *Server) Close() error {
	s.close.Do(func() {
		if err := s.l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.closeErr = err
		}
		s.closeErr = errors.Join(s.closeErr, s.lock.Close())
	})
	return s.closeErr
}

// peerListener hands out the connections of allowed peers only.
type peerListener struct {
	net.Listener
	logger *logrus.Logger
}

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if err := checkPeer(conn); err != nil {
			conn.Close()
			l.logger.WithError(err).Warn("control connection refused")
			continue
		}
		return conn, nil
	}
}

func routes(b Backend) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		status := b.Status()
		// Empty lists, never null: scripts iterate over them.
		if status.Evidence == nil {
			status.Evidence = []string{}
		}
		if status.Links == nil {
			status.Links = []Link{}
		}
		if status.Warnings == nil {
			status.Warnings = []string{}
		}
		answer(w, status)
	})
	mux.HandleFunc("GET /v1/version", func(w http.ResponseWriter, r *http.Request) {
		status := b.Status()
		answer(w, Version{Version: status.Version, PID: status.PID})
	})
	mux.HandleFunc("GET /v1/ports", func(w http.ResponseWriter, r *http.Request) {
		answer(w, listed(b.Ports()))
	})
	mux.HandleFunc("GET /v1/ports/watch", func(w http.ResponseWriter, r *http.Request) {
		watch(w, r, b)
	})
	mux.HandleFunc("GET /v1/reached", func(w http.ResponseWriter, r *http.Request) {
		answer(w, append([]ReachedPort{}, b.Reached()...))
	})
	mux.HandleFunc("PUT /v1/enabled", func(w http.ResponseWriter, r *http.Request) {
		enabled, ok := body[bool](w, r)
		if !ok {
			return
		}
		if err := b.SetEnabled(r.Context(), enabled); err != nil {
			fail(w, err)
			return
		}
		answer(w, enabled)
	})
	mux.HandleFunc("GET /v1/settings", func(w http.ResponseWriter, r *http.Request) {
		settings := b.Settings()
		if settings.Problems == nil {
			settings.Problems = []string{}
		}
		answer(w, settings)
	})
	mux.HandleFunc("PUT /v1/settings/{key}", func(w http.ResponseWriter, r *http.Request) {
		value, ok := body[string](w, r)
		if !ok {
			return
		}
		if err := b.Set(r.Context(), r.PathValue("key"), value); err != nil {
			fail(w, err)
			return
		}
		answer(w, value)
	})
	mux.HandleFunc("DELETE /v1/settings/{key}", func(w http.ResponseWriter, r *http.Request) {
		if err := b.Unset(r.Context(), r.PathValue("key")); err != nil {
			fail(w, err)
			return
		}
		answer(w, true)
	})
	mux.HandleFunc("GET /v1/keys/{link}", func(w http.ResponseWriter, r *http.Request) {
		key, err := b.Key(r.PathValue("link"))
		if err != nil {
			fail(w, err)
			return
		}
		answer(w, key)
	})
	mux.HandleFunc("GET /v1/sandbox", func(w http.ResponseWriter, r *http.Request) {
		sandbox, err := b.Sandbox(r.URL.Query().Get("link"))
		if err != nil {
			fail(w, err)
			return
		}
		answer(w, sandbox)
	})
	return mux
}

// body reads the one JSON value of a request. Where it is something else, that is
// answered.
func body[T any](w http.ResponseWriter, r *http.Request) (v T, ok bool) {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxValue)).Decode(&v)
	if err != nil {
		fail(w, fmt.Errorf("%w: the body must be one JSON %T: %v", ErrInvalid, v, err))
	}
	return v, err == nil
}

// listed is ports without a null in any list.
func listed(ports []Port) []Port {
	if ports == nil {
		return []Port{}
	}
	for i := range ports {
		if ports[i].Host == nil {
			ports[i].Host = []HostPort{}
		}
	}
	return ports
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	encode(w, v)
}

func fail(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf(err))
	encode(w, problem{Error: err.Error()})
}

// encode drops the write's error: the client went away, and it is the only one
// to tell.
func encode(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }
