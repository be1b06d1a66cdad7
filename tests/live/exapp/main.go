// A small ExApp in one static program, for images with nothing else in them: what exapp/sample/main.py does.
package main

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func answer(w http.ResponseWriter, status int, body map[string]string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// signed lets only requests through that HaRP or AppAPI has sent.
func signed(handle func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		decoded, _ := base64.StdEncoding.DecodeString(r.Header.Get("Authorization-App-Api"))
		user, secret, _ := strings.Cut(string(decoded), ":")
		ours := subtle.ConstantTimeCompare([]byte(secret), []byte(os.Getenv("APP_SECRET"))) == 1
		if !ours || r.Header.Get("Ex-App-Id") != os.Getenv("APP_ID") {
			answer(w, http.StatusUnauthorized, map[string]string{"error": "not signed"})
			return
		}
		handle(w, r, user)
	}
}

func listener() (net.Listener, error) {
	if os.Getenv("HP_SHARED_KEY") == "" {
		return net.Listen("tcp", net.JoinHostPort(os.Getenv("APP_HOST"), os.Getenv("APP_PORT")))
	}
	os.Remove("/tmp/exapp.sock")
	return net.Listen("unix", "/tmp/exapp.sock")
}

// obey does before anything else what the environment says: CRASH=3 ends with this status, LISTEN_AFTER=5s waits.
func obey() {
	if status, err := strconv.Atoi(os.Getenv("CRASH")); err == nil {
		fmt.Fprintln(os.Stderr, "cannot go on: CRASH is set")
		os.Exit(status)
	}
	if wait, err := time.ParseDuration(os.Getenv("LISTEN_AFTER")); err == nil {
		time.Sleep(wait)
	}
}

func main() {
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		<-terminated
		os.Exit(0)
	}()
	obey()
	http.HandleFunc("/heartbeat", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	http.HandleFunc("/init", signed(func(w http.ResponseWriter, r *http.Request, user string) {
		answer(w, http.StatusOK, map[string]string{})
	}))
	http.HandleFunc("/enabled", signed(func(w http.ResponseWriter, r *http.Request, user string) {
		fmt.Println(map[bool]string{true: "enabled", false: "disabled"}[r.URL.Query().Get("enabled") == "1"])
		answer(w, http.StatusOK, map[string]string{"error": ""})
	}))
	http.HandleFunc("/", signed(func(w http.ResponseWriter, r *http.Request, user string) {
		if user == "" {
			user = "stranger"
		}
		answer(w, http.StatusOK, map[string]string{"hello": user, "path": r.URL.Path})
	}))
	// Which of several replicas this is, and what it was given; ?after=2s works that long on it.
	http.HandleFunc("/public/pod", signed(func(w http.ResponseWriter, r *http.Request, user string) {
		name, _ := os.Hostname()
		if wait, err := time.ParseDuration(r.URL.Query().Get("after")); err == nil {
			time.Sleep(wait)
		}
		answer(w, http.StatusOK, map[string]string{"pod": name, "role": os.Getenv("ROLE"), "version": os.Getenv("APP_VERSION")})
	}))
	http.HandleFunc("/public/file", signed(func(w http.ResponseWriter, r *http.Request, user string) {
		content, err := os.ReadFile(r.URL.Query().Get("path"))
		if err != nil {
			answer(w, http.StatusNotFound, map[string]string{"error": err.Error()})
			return
		}
		w.Write(content)
	}))
	http.HandleFunc("/public/environment", signed(func(w http.ResponseWriter, r *http.Request, user string) {
		fmt.Fprint(w, strings.Join(os.Environ(), "\n"))
	}))
	listening, err := listener()
	if err == nil {
		err = http.Serve(listening, nil)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
