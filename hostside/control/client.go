package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// Client talks to the daemon of a home. Every method's error wraps
// ErrNotRunning when there is none.
type Client struct {
	http *http.Client
}

// NewClient makes a client; it connects when it is asked something.
func NewClient(home string) *Client {
	return &Client{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, home) },
		// A client lives for one command, the daemon for days.
		DisableKeepAlives: true,
	}}}
}

func notRunning(home string) error {
	return fmt.Errorf("%w on %s: start one with: vmbridge up", ErrNotRunning, home)
}

// Status asks for the whole state.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/v1/status")
}

// Version asks who answers.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return get[Version](ctx, c, "/v1/version")
}

// Ports lists the guests' ports.
func (c *Client) Ports(ctx context.Context) ([]Port, error) {
	return get[[]Port](ctx, c, "/v1/ports")
}

// Reached lists the ports of this machine's loopback that guests have used.
func (c *Client) Reached(ctx context.Context) ([]ReachedPort, error) {
	return get[[]ReachedPort](ctx, c, "/v1/reached")
}

// Key asks for the key of a link.
func (c *Client) Key(ctx context.Context, link string) (string, error) {
	return get[string](ctx, c, "/v1/keys/"+url.PathEscape(link))
}

// Sandbox asks where the sandbox of a link lives; an empty name means the only
// one.
func (c *Client) Sandbox(ctx context.Context, link string) (Sandbox, error) {
	return get[Sandbox](ctx, c, "/v1/sandbox?link="+url.QueryEscape(link))
}

// SetEnabled turns host networking on or off.
func (c *Client) SetEnabled(ctx context.Context, enabled bool) error {
	return c.put(ctx, "/v1/enabled", enabled)
}

// Settings lists what applies.
func (c *Client) Settings(ctx context.Context) (Settings, error) {
	return get[Settings](ctx, c, "/v1/settings")
}

// Set changes a setting in the user's file.
func (c *Client) Set(ctx context.Context, key, value string) error {
	return c.put(ctx, "/v1/settings/"+url.PathEscape(key), value)
}

// Unset takes a setting out of the user's file.
func (c *Client) Unset(ctx context.Context, key string) error {
	r, err := c.do(ctx, http.MethodDelete, "/v1/settings/"+url.PathEscape(key), nil)
	if err != nil {
		return err
	}
	return r.Close()
}

// Watch hands every change of the ports to yield, in order, until ctx ends,
// yield fails or the daemon goes away (io.ErrUnexpectedEOF).
func (c *Client) Watch(ctx context.Context, yield func(Event) error) error {
	r, err := c.do(ctx, http.MethodGet, "/v1/ports/watch", nil)
	if err != nil {
		return err
	}
	defer r.Close()
	return readEvents(r, yield)
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var v T
	r, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return v, err
	}
	defer r.Close()
	if err := json.NewDecoder(r).Decode(&v); err != nil {
		return v, fmt.Errorf("answer of the daemon: %w", err)
	}
	return v, nil
}

func (c *Client) put(ctx context.Context, path string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	r, err := c.do(ctx, http.MethodPut, path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	return r.Close()
}

// do sends a request and gives the body of a good answer.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://vmbridge"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// The made-up URL that http puts before the error means nothing to anyone.
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var p problem
	// An answer that is no JSON leaves p empty, and the status to tell.
	_ = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&p)
	return nil, errorOf(resp.StatusCode, p.Error)
}
