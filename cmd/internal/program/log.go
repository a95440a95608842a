package program

import (
	"fmt"
	"io"
	"os"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// LogFlags are the flags that say how to log.
type LogFlags struct {
	format string
	level  string
}

// Register adds the flags to a command's.
func (f *LogFlags) Register(flags *pflag.FlagSet) {
	flags.StringVar(&f.format, "log-format", "auto", "how to log: text, json, or auto (text on a terminal, else json)")
	flags.StringVar(&f.level, "log-level", "info", "how much to log: error, warn, info or debug")
}

// Logger makes the logger that the flags ask for. Its error is wrong usage.
func (f *LogFlags) Logger(w io.Writer) (*logrus.Logger, error) {
	logger := logrus.New()
	logger.SetOutput(w)
	level, err := logrus.ParseLevel(f.level)
	if err != nil {
		return nil, Usage(fmt.Errorf("--log-level: %q is none of error, warn, info, debug", f.level))
	}
	logger.SetLevel(level)
	switch f.format {
	case "auto":
		if !isTerminal(w) {
			logger.SetFormatter(&logrus.JSONFormatter{})
			break
		}
		fallthrough
	case "text":
		logger.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, TimestampFormat: "15:04:05.000"})
	case "json":
		logger.SetFormatter(&logrus.JSONFormatter{})
	default:
		return nil, Usage(fmt.Errorf("--log-format: %q is none of text, json, auto", f.format))
	}
	return logger, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
