package hybrid

import "time"

// SetTimes shortens the server's times.
func (s *Server) SetTimes(request, linger time.Duration) {
	s.times.request, s.times.linger = request, linger
}

// ParseConnect is parseConnect.
var ParseConnect = parseConnect
