//go:build !linux

package orders

import "errors"

func run(*framer, []string) error { return errors.New("machines run Linux") }
