// The search of pages opened from a folder: browsers start no worker there, so its script runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      window.addEventListener("message", ({ source, data }) => {
        if (source === this.frame.contentWindow) this.dispatchEvent(new MessageEvent("message", { data }));
      });
      const page = this.frame.contentDocument;
      page.open();
      page.write(`<body><script>
        const answer = parent.postMessage.bind(parent);
        window.postMessage = (data) => answer(data, "*");
      <\/script><script src="${url}"><\/script></body>`);
      page.close();
      this.ready = new Promise((done) => this.frame.addEventListener("load", done, { once: true }));
    }
    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
