package agentlog

import (
	"encoding/json"
	"fmt"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// maxText bounds a line that is no JSON, in bytes.
const maxText = 4 << 10

// Parse reads a line of an agent's standard error, which is JSON unless the agent ends
// in an error or a panic. What is no JSON is a warning as it is. The line is clean
// then.
func Parse(line []byte) message.Log {
	var fields map[string]any
	if err := json.Unmarshal(line, &fields); err != nil {
		return message.Log{Level: logrus.WarnLevel.String(), Text: message.Clean(string(line), maxText)}
	}
	text := func(key string) string {
		s, _ := fields[key].(string)
		delete(fields, key)
		return s
	}
	entry := message.Log{Level: text(logrus.FieldKeyLevel), Text: text(logrus.FieldKeyMsg), Fields: map[string]string{}}
	delete(fields, logrus.FieldKeyTime)
	for key, value := range fields {
		entry.Fields[key] = fmt.Sprint(value)
	}
	entry.Clean()
	return entry
}
