// Which database to use now: (*Following).Side before each request costs one stat.
// `go run follow.go DIRECTORY` prints the side for writes whenever it changes.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Side is one database: a path of SQLite's, or where PostgreSQL is.
type Side struct {
	Engine   string `json:"engine"`
	Path     string `json:"path"`
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Database string `json:"database"`
	User     string `json:"user"`
	Password string `json:"password"`
}

// Following is safe for several goroutines.
type Following struct {
	file string
	lock sync.Mutex
	seen os.FileInfo
	said map[string]json.RawMessage
}

func Follow(directory string) *Following {
	return &Following{file: filepath.Join(directory, "database.json")}
}

// Side is what takes writes ("write"), or answers reads ("read"). The file is replaced by a rename,
// so that one version is read whole: the old one or the new one.
func (f *Following) Side(purpose string) (side Side, err error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	found, err := os.Stat(f.file)
	if err != nil {
		return side, err
	}
	if f.seen == nil || !os.SameFile(found, f.seen) || !found.ModTime().Equal(f.seen.ModTime()) {
		text, err := os.ReadFile(f.file)
		if err != nil {
			return side, err
		}
		if err := json.Unmarshal(text, &f.said); err != nil {
			return side, err
		}
		f.seen = found
	}
	err = json.Unmarshal(f.said[purpose], &side)
	return side, err
}

func (s Side) String() string {
	if s.Engine == "sqlite" {
		return "sqlite " + s.Path
	}
	return fmt.Sprintf("postgresql %s:%d/%s", s.Host, s.Port, s.Database)
}

func main() {
	following, last := Follow(os.Args[1]), ""
	for {
		side, err := following.Side("write")
		if err != nil {
			log.Fatal(err)
		}
		if now := side.String(); now != last {
			fmt.Println(now)
			last = now
		}
		time.Sleep(50 * time.Millisecond)
	}
}
