"""The stage `speech_llm`: a speech language model is asked about a corpus."""
