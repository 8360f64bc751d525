"""The command line, one file per command."""

COMMANDS = {
    "run": "unlearn every request of a configuration in order, evaluate after each, and write a report",
    "detector": "fit the detector of one request alone",
    "adapter": "train the adapter of one request alone",
    "evaluate": "measure or attack the gated model of a run as its store is now, or any checkpoint",
    "estimate": "predict the time and memory of a run",
    "study": "compare whole runs: every variant of a study with every seed, in one table",
    "report": "write a finished run's report again, or compare several runs on one page",
    "ask": "answer questions with the base model and the gated model, side by side",
    "reveal": "elicit what a model knows about a topic, and write it as a request",
    "release": "unlearn by subtracting adapters from the weights, in rounds that can be undone",
    "configs": "list the shipped configurations, or copy one to change it",
    "serve": "answer HTTP calls with the gated model of a store, in OpenAI's form",
    "export": "hand the requests of a store over to PEFT, vLLM or llama.cpp",
    "audit": "summarise the audit log of a server",
    "requests": "add, train, list, show, revoke, restore, certify, verify or remove the requests of a store",
    "verify-certificate": "verify a certificate of a request with the signer's public key alone",
}
