import { Visits } from "@/visits";

import { ContactForm } from "./form";

export const metadata = { title: "Contact" };

export default function Contact() {
  return (
    <>
      <h1>Contact</h1>
      <ContactForm />
      <Visits page="contact" />
    </>
  );
}
