// A broadcast server as one writes it with gorilla/websocket: a goroutine for the hub, and for each client
// two goroutines and a channel. See README.md for what it hears and says.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// A client that is so many messages behind is dropped.
const behind = 256

type client struct {
	socket *websocket.Conn
	send   chan []byte
}

type hub struct {
	join, leave chan *client
	publish     chan []byte
}

func (h *hub) run() {
	clients := map[*client]bool{}
	drop := func(c *client) {
		if clients[c] {
			delete(clients, c)
			close(c.send)
		}
	}
	for {
		select {
		case c := <-h.join:
			clients[c] = true
		case c := <-h.leave:
			drop(c)
		case message := <-h.publish:
			for c := range clients {
				select {
				case c.send <- message:
				default:
					drop(c)
				}
			}
		}
	}
}

func (c *client) write() {
	defer c.socket.Close()
	for message := range c.send {
		if c.socket.WriteMessage(websocket.TextMessage, message) != nil {
			return
		}
	}
}

func (c *client) read(h *hub) {
	defer func() { h.leave <- c }()
	for {
		var request struct {
			Type     string   `json:"type"`
			Channels []string `json:"channels"`
		}
		if c.socket.ReadJSON(&request) != nil {
			return
		}
		if request.Type == "subscribe" {
			answer, _ := json.Marshal(map[string]any{"type": "subscribed", "channels": request.Channels})
			c.send <- answer
			h.join <- c
		}
	}
}

func main() {
	h := &hub{make(chan *client), make(chan *client), make(chan []byte)}
	go h.run()
	upgrader := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}
	http.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		socket, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &client{socket, make(chan []byte, behind)}
		go c.write()
		go c.read(h)
	})
	http.HandleFunc("/api/publish", func(w http.ResponseWriter, r *http.Request) {
		var item struct {
			Channel string          `json:"channel"`
			Data    json.RawMessage `json:"data"`
		}
		if err := json.NewDecoder(r.Body).Decode(&item); err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		now := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
		h.publish <- fmt.Appendf(nil, `{"type":"message","channel":%q,"payload":%s,"timestamp":%q}`, item.Channel, item.Data, now)
		fmt.Fprint(w, `{"accepted":1}`)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("gorilla listening on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}
