"""StyleGAN2 and StyleGAN3."""
