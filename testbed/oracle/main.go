// Command cron-oracle answers "when does this schedule fire next?" with the parser that Kubernetes' CronJob
// controller uses, so that our own parser can be compared with it.
//
// Each line of standard input is `<unix-seconds>\t<time zone>\t<cron expression>`. The answer to it is one line: the
// unix seconds of the first firing strictly after the given instant, `0` when there is none within five years, or
// `error: <why>`.
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the machine may have no zone files

	"github.com/robfig/cron/v3"
)

func main() {
	if err := answer(os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func answer(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	replies := bufio.NewWriter(out)
	for lines.Scan() {
		next, err := next(lines.Text())
		if err != nil {
			fmt.Fprintf(replies, "error: %v\n", err)
		} else {
			fmt.Fprintln(replies, next)
		}
		// A caller may hold the pipe open and wait for each answer.
		if err := replies.Flush(); err != nil {
			return err
		}
	}
	return lines.Err()
}

func next(line string) (int64, error) {
	fields := strings.SplitN(line, "\t", 3)
	if len(fields) != 3 {
		return 0, fmt.Errorf("expected `<unix-seconds>\\t<tz>\\t<cron>`, got %q", line)
	}
	seconds, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("unix seconds: %w", err)
	}
	schedule, err := cron.ParseStandard("TZ=" + fields[1] + " " + fields[2])
	if err != nil {
		return 0, err
	}
	at := schedule.Next(time.Unix(seconds, 0))
	if at.IsZero() {
		return 0, nil
	}
	return at.Unix(), nil
}
