package link

import (
	"sync"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// Buffers come in three sizes. A reader starts with the smallest and moves up
// while it fills them, so that a keystroke costs 4 KiB of cache and a bulk copy
// few system calls.
const (
	smallBuffer = iota
	mediumBuffer
	largeBuffer
	bufferClasses
)

var bufferSizes = [bufferClasses]int{4 << 10, 32 << 10, wire.HeaderSize + 128<<10}

// buffer is pooled memory with room for a frame: a header and its payload.
type buffer struct {
	bytes []byte
	class int
}

// bufferPool hands out buffers by class.
type bufferPool struct {
	pools [bufferClasses]sync.Pool
}

func (p *bufferPool) get(class int) *buffer {
	if b, ok := p.pools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{bytes: make([]byte, bufferSizes[class]), class: class}
}

func (p *bufferPool) put(b *buffer) { p.pools[b.class].Put(b) }

// fitting is the smallest class that holds n bytes, or the largest there is.
func fitting(n int) int {
	for class := range largeBuffer {
		if n <= bufferSizes[class] {
			return class
		}
	}
	return largeBuffer
}

// chunk is a piece of a stream's queue: bytes of a buffer, or all of a pipe.
type chunk struct {
	buffer *buffer
	end    int // bytes of the buffer that are in use
	pipe   *pipe
}

func (c chunk) size() int {
	if c.pipe != nil {
		return c.pipe.n
	}
	return c.end
}

// queue holds what a stream's socket has not taken yet, in order.
type queue struct {
	chunks []chunk
	size   int // bytes
}

// add copies p to the end.
func (q *queue) add(pool *bufferPool, p []byte) {
	q.size += len(p)
	for len(p) > 0 {
		if last := len(q.chunks) - 1; last >= 0 && q.chunks[last].pipe == nil {
			c := &q.chunks[last]
			n := copy(c.buffer.bytes[c.end:], p)
			c.end += n
			p = p[n:]
			if len(p) == 0 {
				return
			}
		}
		q.chunks = append(q.chunks, chunk{buffer: pool.get(fitting(len(p)))})
	}
}

// addPipe takes over a pipe.
func (q *queue) addPipe(p *pipe) {
	q.size += p.n
	q.chunks = append(q.chunks, chunk{pipe: p})
}

// take gives everything to the caller, who puts the buffers back.
func (q *queue) take() []chunk {
	chunks := q.chunks
	*q = queue{}
	return chunks
}
