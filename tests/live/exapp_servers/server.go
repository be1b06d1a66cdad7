// go build server.go; ./server PORT
package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"strings"
)

func main() {
	handlers := map[string]bool{}
	mux, trees := http.NewServeMux(), http.NewServeMux()
	for _, name := range strings.Split(os.Getenv("HANDLERS"), ",") {
		handlers[name] = true
		run := func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Ran", name) }
		if strings.HasSuffix(name, "/") {
			mux.HandleFunc(name+"{$}", run)
			continue
		}
		mux.HandleFunc(name, run)
		trees.HandleFunc(name+"/{$}", run)
	}
	serve := func(w http.ResponseWriter, r *http.Request) {
		var found []string
		note := func(way, read string) {
			if !handlers[read] {
				read = "-"
			}
			found = append(found, way+"="+read)
		}
		for way, mux := range map[string]*http.ServeMux{"mux": mux, "trees": trees} {
			recorder := httptest.NewRecorder()
			mux.ServeHTTP(recorder, r)
			note(way, recorder.Header().Get("Ran"))
		}
		raw, _, _ := strings.Cut(r.RequestURI, "?")
		ways := map[string]string{"Path": r.URL.Path, "EscapedPath": r.URL.EscapedPath(), "RequestURI": raw,
			"lower": strings.TrimSpace(strings.ToLower(r.URL.Path)), "Clean": path.Clean(r.URL.Path)}
		if parsed, err := url.Parse(r.RequestURI); err == nil {
			ways["Parse"] = parsed.Path
		}
		if again, err := url.PathUnescape(r.URL.Path); err == nil {
			ways["twice"] = again
		}
		for way, read := range ways {
			note(way, read)
			note(way+"/", strings.TrimRight(read, "/"))
		}
		fmt.Fprint(w, strings.Join(found, " "))
	}
	err := http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(serve))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
