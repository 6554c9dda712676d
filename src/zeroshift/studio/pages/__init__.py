"""The pages of the studio in gradio: one module per tab, over `zeroshift.studio.engine`."""
