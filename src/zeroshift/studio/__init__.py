"""The web interface: `engine` works without it, `pages` shows it with gradio."""
