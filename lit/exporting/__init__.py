"""The adapter for other tools: merged folder, PEFT folder, GGUF file, Modelfile."""
